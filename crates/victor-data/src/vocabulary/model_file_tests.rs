//! Tests of `tokenizer.model` files: what they give, damaged ones, ones that are not computed.

use std::path::Path;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::vocabulary::tests::{A, SPACE_A, SPACE_AB, pieces, sentence_piece};
use crate::{DataError, Tokenizer};

fn model() -> ModelProto {
    let pieces = pieces().into_iter().map(|(piece, score, kind)| Piece {
        piece: Some(piece),
        score: Some(score),
        kind: (kind != 1).then_some(kind),
    });
    ModelProto {
        pieces: pieces.collect(),
        trainer_spec: Some(TrainerSpec {
            model_type: Some(2),
            ..TrainerSpec::default()
        }),
        normalizer_spec: Some(NormalizerSpec {
            name: Some("identity".to_owned()),
            remove_extra_whitespaces: Some(false),
            ..NormalizerSpec::default()
        }),
    }
}

#[test]
fn a_sentencepiece_file_gives_its_vocabulary() -> Result<(), VocabularyProblem> {
    let found = Vocabulary::from_sentencepiece(&model().encode_to_vec())?;
    assert_eq!(found, sentence_piece());

    let mut model = model();
    let trainer = model.trainer_spec.get_or_insert_default();
    (trainer.bos_id, trainer.eos_id) = (Some(-1), Some(260));
    let normalizer = model.normalizer_spec.get_or_insert_default();
    normalizer.add_dummy_prefix = Some(false);
    normalizer.remove_extra_whitespaces = None;
    let found = Vocabulary::from_sentencepiece(&model.encode_to_vec())?;
    assert_eq!(
        (found.bos, found.eos, found.unk),
        (None, Some(260), Some(0))
    );
    assert!(matches!(
        found.kind,
        VocabularyKind::SentencePiece {
            space_prefix: SpacePrefix::Never,
            remove_extra_whitespaces: true,
            ..
        }
    ));
    Ok(())
}

#[test]
fn what_is_not_computed_is_named() {
    let problem = |change: &dyn Fn(&mut TrainerSpec, &mut NormalizerSpec)| {
        let mut model = model();
        change(
            model.trainer_spec.get_or_insert_default(),
            model.normalizer_spec.get_or_insert_default(),
        );
        Vocabulary::from_sentencepiece(&model.encode_to_vec())
            .expect_err("not computed")
            .to_string()
    };
    let text = problem(&|trainer, _| trainer.model_type = None);
    assert!(text.contains("unigram") && text.contains("save_pretrained"));
    let text = problem(&|trainer, _| trainer.treat_whitespace_as_suffix = Some(true));
    assert!(text.contains("treat_whitespace_as_suffix"), "{text}");
    let text = problem(&|_, normalizer| normalizer.escape_whitespaces = Some(false));
    assert!(text.contains("escape_whitespaces"), "{text}");
    let text = problem(&|_, normalizer| {
        normalizer.name = Some("nmt_nfkc".to_owned());
        normalizer.precompiled_charsmap = Some(vec![1, 2, 3]);
    });
    assert!(text.contains("nmt_nfkc"), "{text}");
}

#[test]
fn a_folder_with_only_a_sentencepiece_file_opens() -> Result<(), DataError> {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).expect("written");
    };
    write("tokenizer.model", &model().encode_to_vec());
    let open = |dir: &Path| Tokenizer::from_dir(dir);
    let tokenizer = open(dir.path())?;
    assert_eq!(
        tokenizer.encode("ab</s>a", true)?,
        [1, SPACE_AB, 2, SPACE_A]
    );

    write("added_tokens.json", br#"{"<im_start>": 268}"#);
    write(
        "special_tokens_map.json",
        br#"{"bos_token": {"content": "<s>"}, "eos_token": "b"}"#,
    );
    write(
        "tokenizer_config.json",
        br#"{"add_bos_token": false, "add_eos_token": true, "legacy": false, "eos_token": "</s>"}"#,
    );
    let tokenizer = open(dir.path())?;
    assert_eq!(
        tokenizer.encode("ab<im_start>a", true)?,
        [SPACE_AB, 268, A, 2]
    );
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.max_id()),
        (Some("<s>"), Some("</s>"), 268)
    );

    write("tokenizer.model", &model().encode_to_vec()[..1000]);
    let text = open(dir.path()).expect_err("cut short").to_string();
    assert!(text.contains("tokenizer.model"), "{text}");
    let file = std::fs::File::create(dir.path().join("tokenizer.model")).expect("created");
    file.set_len(1 << 30).expect("a sparse file");
    let text = open(dir.path()).expect_err("too large").to_string();
    assert!(text.contains("limit"), "{text}");
    Ok(())
}

#[test]
fn no_cut_of_a_file_panics() {
    let bytes = model().encode_to_vec();
    let whole = (0..bytes.len())
        .filter(|&end| Tokenizer::from_sentencepiece(&bytes[..end], "cut").is_ok())
        .count();
    // The settings stand at the end, and without them the type is unigram.
    assert!(whole < 40, "{whole}");
    // A length far beyond the file.
    let huge = [0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
    assert!(matches!(
        Vocabulary::from_sentencepiece(&huge),
        Err(VocabularyProblem::NotSentencePiece { .. })
    ));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Tokenizer::from_sentencepiece(&bytes, "bytes");
    }

    #[test]
    fn no_changed_byte_panics(at in 0_usize..3000, byte: u8) {
        let mut bytes = model().encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(tokenizer) = Tokenizer::from_sentencepiece(&bytes, "bytes") {
            prop_assert!(tokenizer.encode("ab é <s> cab", true).is_ok());
        }
    }
}
