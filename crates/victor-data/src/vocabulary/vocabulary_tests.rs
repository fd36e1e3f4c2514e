//! Tests of vocabularies: ids, damaged lists. Real ones are compared by `cargo xtask tokenizers`.

use proptest::prelude::*;

use super::*;
use crate::{DataError, Tokenizer};

/// Ids of some pieces after the three special ones and the 256 bytes.
pub(super) const A: u32 = 260;
const C: u32 = 262;
const AB: u32 = 263;
pub(super) const SPACE_A: u32 = 264;
pub(super) const SPACE_AB: u32 = 265;

pub(super) fn pieces() -> Vec<(String, f32, i32)> {
    let special = [("<unk>", 2), ("<s>", 3), ("</s>", 3)];
    let special = special.map(|(piece, kind)| (piece.to_owned(), 0.0, kind));
    let bytes = (0..=u8::MAX).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6));
    let merged = ["▁", "a", "b", "c", "ab", "▁a", "▁ab", "bc", "abc"];
    let scores = [-10.0, -11.0, -12.0, -13.0, -1.0, -2.0, -3.0, -4.0, -5.0];
    let merged = merged.iter().zip(scores);
    let merged = merged.map(|(piece, score)| ((*piece).to_owned(), score, 1));
    special.into_iter().chain(bytes).chain(merged).collect()
}

pub(super) fn sentence_piece() -> Vocabulary {
    let pieces = pieces();
    let tokens = pieces.iter().map(|piece| piece.0.clone()).collect();
    let scores = pieces.iter().map(|piece| piece.1).collect();
    let mut vocabulary = Vocabulary::sentence_piece(tokens, scores);
    vocabulary.token_types = pieces.iter().map(|piece| piece.2.into()).collect();
    vocabulary
}

/// Every byte, and merges that make `Hello`, ` a` and `12`.
fn byte_level(pre_tokenizer: &str) -> Vocabulary {
    let mut symbols: Vec<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
        .into_iter()
        .collect();
    symbols.sort_unstable();
    let mut tokens: Vec<String> = symbols.iter().map(char::to_string).collect();
    let merged = ["Ġa", "12", "123", "He", "Hel", "<|im_end|>", "Hello"];
    tokens.extend(merged.map(str::to_owned));
    let merges = ["Ġ a", "1 2", "12 3", "H e", "He l"].map(str::to_owned);
    let mut vocabulary = Vocabulary::byte_level(pre_tokenizer.to_owned(), tokens, merges.to_vec());
    vocabulary.token_types = vec![TokenType::Normal; vocabulary.tokens.len()];
    vocabulary.token_types[261] = TokenType::Control;
    vocabulary.add_bos = false;
    vocabulary
}

fn words(vocabulary: Vocabulary, text: &str) -> Vec<String> {
    let tokenizer = Tokenizer::from_vocabulary(vocabulary, "test").expect("a tokenizer");
    let ids = tokenizer.encode(text, false).expect("encodes");
    assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), text);
    let word = |id: &u32| tokenizer.id_to_token(*id).expect("a token");
    ids.iter().map(word).collect()
}

fn problem(vocabulary: Vocabulary) -> String {
    let error = Tokenizer::from_vocabulary(vocabulary, "x.gguf").expect_err("damaged");
    assert!(matches!(error, DataError::BadVocabulary { .. }), "{error}");
    error.to_string()
}

#[test]
fn the_best_score_merges_first() -> Result<(), DataError> {
    let tokenizer = Tokenizer::from_vocabulary(sentence_piece(), "test")?;
    assert_eq!(tokenizer.encode("abc", true)?, [1, SPACE_AB, C]);
    // Without a piece for it a character becomes its bytes.
    assert_eq!(
        tokenizer.encode("aé", false)?,
        [SPACE_A, 3 + 0xC3, 3 + 0xA9]
    );
    assert_eq!(tokenizer.decode(&[1, SPACE_A, 198, 172, A], true)?, "aéa");
    assert_eq!(tokenizer.encode("", true)?, [1]);
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos()),
        (Some("<s>"), Some("</s>"))
    );
    assert_eq!((tokenizer.max_id(), tokenizer.end_ids()), (267, vec![2]));
    Ok(())
}

#[test]
fn spaces_go_where_the_file_says() -> Result<(), DataError> {
    let cases = [
        (SpacePrefix::Never, vec![AB, 2, A]),
        (SpacePrefix::Text, vec![SPACE_AB, 2, A]),
        (SpacePrefix::Sections, vec![SPACE_AB, 2, SPACE_A]),
    ];
    for (prefix, expected) in cases {
        let mut vocabulary = sentence_piece();
        if let VocabularyKind::SentencePiece { space_prefix, .. } = &mut vocabulary.kind {
            *space_prefix = prefix;
        }
        let tokenizer = Tokenizer::from_vocabulary(vocabulary, "test")?;
        assert_eq!(tokenizer.encode("ab</s>a", false)?, expected, "{prefix:?}");
    }
    let mut vocabulary = sentence_piece();
    if let VocabularyKind::SentencePiece {
        remove_extra_whitespaces,
        ..
    } = &mut vocabulary.kind
    {
        *remove_extra_whitespaces = true;
    }
    let tokenizer = Tokenizer::from_vocabulary(vocabulary, "test")?;
    assert_eq!(tokenizer.encode("  a   a ", false)?, [SPACE_A, SPACE_A]);
    Ok(())
}

#[test]
fn special_pieces_are_found_and_never_merged() -> Result<(), DataError> {
    let mut vocabulary = sentence_piece();
    for piece in ["<", "s>"] {
        vocabulary.tokens.push(piece.to_owned());
        vocabulary.token_types.push(TokenType::Normal);
    }
    vocabulary.tokens.push("cab".to_owned());
    vocabulary.token_types.push(TokenType::UserDefined);
    if let VocabularyKind::SentencePiece { scores, .. } = &mut vocabulary.kind {
        scores.extend([-20.0, -21.0, 0.0]);
    }
    let tokenizer = Tokenizer::from_vocabulary(vocabulary, "test")?;
    assert_eq!(tokenizer.encode("<s>a", false)?, [1, SPACE_A]);
    // A user-defined piece goes before better scores.
    assert_eq!(tokenizer.encode("acab", false)?, [SPACE_A, 270]);
    let text = tokenizer.decode(&[1, SPACE_A, 270], true)?;
    assert_eq!(text, "acab");
    Ok(())
}

#[test]
fn names_choose_how_words_are_cut() {
    let text = "Hello a 12345\n";
    let expected = [
        ("llama-bpe", "Hello|Ġa|Ġ|123|4|5|Ċ"),
        ("qwen2", "Hel|l|o|Ġa|Ġ|1|2|3|4|5|Ċ"),
        ("smollm", "Hel|l|o|Ġa|Ġ|1|2|3|4|5|Ċ"),
        ("gpt-2", "Hel|l|o|Ġa|Ġ|123|4|5|Ċ"),
    ];
    for (name, cut) in expected {
        assert_eq!(words(byte_level(name), text).join("|"), cut, "{name}");
    }
    for name in PRE_TOKENIZERS {
        words(byte_level(name), text);
    }
    // Only Qwen's tokenizer composes characters.
    let vocabulary = byte_level("qwen2");
    let tokenizer = Tokenizer::from_vocabulary(vocabulary, "test").expect("a tokenizer");
    let ids = |text| tokenizer.encode(text, false).expect("encodes");
    assert_eq!(ids("e\u{301}"), ids("é"));
}

#[test]
fn the_end_of_a_turn_is_known_by_its_name() -> Result<(), DataError> {
    let tokenizer = Tokenizer::from_vocabulary(byte_level("qwen2"), "test")?;
    assert_eq!(tokenizer.end_ids(), [261]);
    assert_eq!(
        tokenizer.encode("12<|im_end|>", false)?.last(),
        Some(&261),
        "found in the text"
    );
    let mut vocabulary = byte_level("llama-bpe");
    vocabulary.eos = Some(0);
    vocabulary.bos = Some(3);
    vocabulary.add_eos = true;
    vocabulary.add_bos = true;
    let tokenizer = Tokenizer::from_vocabulary(vocabulary, "test")?;
    assert_eq!(tokenizer.end_ids(), [0, 261]);
    assert_eq!(tokenizer.encode("Hello", true)?, [3, 262, 0]);
    Ok(())
}

#[test]
fn damaged_vocabularies_are_refused_by_name() {
    let text = problem(byte_level("falcon"));
    assert!(text.contains("x.gguf") && text.contains("\"falcon\""));
    assert!(PRE_TOKENIZERS.iter().all(|name| text.contains(name)));

    let changed = |change: &dyn Fn(&mut Vocabulary)| {
        let mut vocabulary = sentence_piece();
        change(&mut vocabulary);
        problem(vocabulary)
    };
    let text = changed(&|vocabulary| vocabulary.tokens[260] = "▁ab".to_owned());
    assert!(text.contains("260") && text.contains("265"), "{text}");
    let text = changed(&|vocabulary| vocabulary.bos = Some(999));
    assert!(text.contains("999") && text.contains("268"), "{text}");
    let text = changed(&|vocabulary| vocabulary.bos = None);
    assert!(text.contains("beginning-of-sequence"), "{text}");
    let text = changed(&|vocabulary| vocabulary.token_types.truncate(3));
    assert!(text.contains("3 token types for 268"), "{text}");
    let text = changed(&|vocabulary| vocabulary.tokens.push("more".to_owned()));
    assert!(text.contains("for 269 tokens"), "{text}");
    let text = changed(&|vocabulary| vocabulary.tokens[267] = "a".repeat(2000));
    assert!(text.contains("2000 bytes"), "{text}");
    let text = changed(&|vocabulary| {
        vocabulary.unk = None;
        vocabulary.tokens[3] = "no byte".to_owned();
    });
    assert!(text.contains("<0x00>"), "{text}");
    assert!(problem(Vocabulary::sentence_piece(Vec::new(), Vec::new())).contains("no token"));

    for (merge, expected) in [("Ġa", "merge 5"), ("", "merge 5"), ("q zz", "tokens")] {
        let mut vocabulary = byte_level("gpt-2");
        if let VocabularyKind::ByteLevel { merges, .. } = &mut vocabulary.kind {
            merges.push(merge.to_owned());
        }
        let text = problem(vocabulary);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn nameless_tokens_keep_their_place() -> Result<(), DataError> {
    let mut vocabulary = sentence_piece();
    vocabulary.tokens[261].clear();
    let tokenizer = Tokenizer::from_vocabulary(vocabulary, "test")?;
    assert_eq!(tokenizer.id_to_token(261).as_deref(), Some("[EMPTY_261]"));
    Ok(())
}

#[test]
fn a_vocabulary_of_32000_pieces_is_ready_within_a_second() -> Result<(), DataError> {
    // As many pieces, lengths and splits as Llama-2 has, over an alphabet of eight letters.
    let mut tokens = pieces()
        .into_iter()
        .map(|piece| piece.0)
        .collect::<Vec<_>>();
    tokens.truncate(259);
    let letters: Vec<String> = ('a'..='h').map(|letter| letter.to_string()).collect();
    let (mut start, mut end) = (tokens.len(), tokens.len() + letters.len());
    tokens.extend(letters.iter().cloned());
    while tokens.len() < 32_000 {
        for at in start..end {
            for letter in &letters {
                let longer = format!("{}{letter}", tokens[at]);
                tokens.push(longer);
            }
        }
        (start, end) = (end, tokens.len());
    }
    tokens.truncate(32_000);
    let scores = (0..tokens.len()).map(|rank| -(rank as f32)).collect();
    let mut vocabulary = Vocabulary::sentence_piece(tokens, scores);
    vocabulary.token_types = vec![TokenType::Normal; 32_000];
    vocabulary.token_types[..3].fill(TokenType::Control);
    vocabulary.token_types[3..259].fill(TokenType::Byte);
    let clock = std::time::Instant::now();
    let tokenizer = Tokenizer::from_vocabulary(vocabulary, "test")?;
    let elapsed = clock.elapsed();
    assert_eq!(tokenizer.max_id(), 31_999);
    // A debug build takes some ten times as long.
    let limit = if cfg!(debug_assertions) { 10 } else { 1 };
    assert!(elapsed.as_secs() < limit, "{elapsed:?}");
    Ok(())
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "[ a-c\n🦀é<>]{0,12}") {
        let tokenizer = Tokenizer::from_vocabulary(sentence_piece(), "test").expect("a tokenizer");
        let ids = tokenizer.encode(&text, false).expect("encodes");
        prop_assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), text);
    }
}

/// A hundred runs of one letter have 4950 merges: of 16 MB of such pieces gigabytes would be made.
#[test]
fn pieces_that_multiply_are_refused() {
    let tokens = (1..=100).map(|length| "a".repeat(length)).collect();
    let mut vocabulary = Vocabulary::sentence_piece(tokens, vec![0.0; 100]);
    vocabulary.unk = Some(0);
    let error = Tokenizer::from_vocabulary(vocabulary, "runs").expect_err("too many");
    assert!(
        error.to_string().contains("merges make 100 pieces"),
        "{error}"
    );
}
