//! Compares tokenizers with the ids that llama.cpp's vocabulary tests expect.
//!
//! `cargo xtask tokenizers` fetches the vocabularies and runs this; by hand, after that:
//!
//! ```text
//! cargo run --release -p victor-data --example tokenizer_parity -- data/tokenizers
//! ```
//!
//! A second folder may hold other `inputs.txt` and `*.ids`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use victor_data::{SpacePrefix, TokenType, Tokenizer, Vocabulary, VocabularyKind};

/// Inputs and ids from `ggml-vocab-*.gguf.inp` and `.out`.
const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tokenizers");
const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

/// Of each model, the files that must give the expected ids.
const MODELS: &[(&str, &[&str])] = &[
    (
        "llama-spm",
        &["vocabulary.json", "tokenizer.model", "tokenizer.json"],
    ),
    ("llama-bpe", &["vocabulary.json", "tokenizer.json"]),
    ("qwen2", &["vocabulary.json", "tokenizer.json"]),
    ("smollm", &["vocabulary.json"]),
    ("refact", &["vocabulary.json"]),
    ("gpt-2", &["vocabulary.json"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    let root: PathBuf = std::env::args_os()
        .nth(1)
        .ok_or("usage: tokenizer_parity DIR [EXPECTED]")?
        .into();
    let tests = std::env::args_os().nth(2).unwrap_or(EXPECTED.into());
    let tests = Path::new(&tests);
    let inputs = std::fs::read_to_string(tests.join("inputs.txt"))?;
    let inputs = inputs
        .strip_suffix(SEPARATOR)
        .ok_or("inputs.txt is cut short")?;
    let inputs: Vec<&str> = inputs.split(SEPARATOR).collect();
    let mut wrong = 0;
    for (model, files) in MODELS {
        let expected = expected_ids(&tests.join(format!("{model}.ids")))?;
        if expected.len() != inputs.len() {
            return Err(format!("{model}: {} rows of ids", expected.len()).into());
        }
        for file in *files {
            let path = root.join(model).join(file);
            let clock = Instant::now();
            let tokenizer = open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let opened = clock.elapsed();
            wrong += compare(&path, &tokenizer, &inputs, &expected, opened)?;
        }
    }
    if wrong > 0 {
        return Err(format!("{wrong} texts have other ids than expected").into());
    }
    Ok(())
}

/// Prints a line for the file, and each text whose ids differ; returns how many do.
#[expect(clippy::print_stdout, reason = "what this program is for")]
fn compare(
    path: &Path,
    tokenizer: &Tokenizer,
    inputs: &[&str],
    expected: &[Vec<u32>],
    opened: Duration,
) -> Result<usize, Box<dyn Error>> {
    let mut wrong = 0;
    for (text, expected) in inputs.iter().zip(expected) {
        let found = tokenizer.encode(text, false)?;
        if found != *expected {
            println!("  {text:?}\n    expected {expected:?}\n    found    {found:?}");
            wrong += 1;
        }
        let back = tokenizer.decode(expected, true)?;
        if back != *text {
            println!("  {text:?} comes back as {back:?}");
            wrong += 1;
        }
    }
    let (right, all) = (inputs.len() - wrong.min(inputs.len()), inputs.len());
    println!(
        "{}: {right} of {all} texts, opened in {opened:.2?}",
        path.display()
    );
    Ok(wrong)
}

fn expected_ids(path: &Path) -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    let row = |line: &str| line.split_whitespace().map(str::parse).collect();
    let rows: Result<Vec<Vec<u32>>, _> = text.lines().map(row).collect();
    Ok(rows?)
}

fn open(path: &Path) -> Result<Tokenizer, Box<dyn Error>> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name {
        Some("vocabulary.json") => {
            let metadata: Metadata = serde_json::from_slice(&std::fs::read(path)?)?;
            let vocabulary = metadata.into_vocabulary()?;
            Ok(Tokenizer::from_vocabulary(
                vocabulary,
                &path.display().to_string(),
            )?)
        }
        Some("tokenizer.model") => {
            let bytes = std::fs::read(path)?;
            let origin = path.display().to_string();
            Ok(Tokenizer::from_sentencepiece(&bytes, &origin)?)
        }
        // It would fall back to another file.
        _ if !path.is_file() => Err("no such file".into()),
        _ => Ok(Tokenizer::from_dir(
            path.parent().ok_or("expected a folder")?,
        )?),
    }
}

/// The keys of a GGUF file that its vocabulary is in.
#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "tokenizer.ggml.model")]
    model: String,
    #[serde(rename = "tokenizer.ggml.pre")]
    pre: Option<String>,
    #[serde(rename = "tokenizer.ggml.tokens")]
    tokens: Vec<String>,
    #[serde(rename = "tokenizer.ggml.scores", default)]
    scores: Vec<f32>,
    #[serde(rename = "tokenizer.ggml.token_type", default)]
    token_types: Vec<i32>,
    #[serde(rename = "tokenizer.ggml.merges", default)]
    merges: Vec<String>,
    #[serde(rename = "tokenizer.ggml.bos_token_id")]
    bos: Option<u32>,
    #[serde(rename = "tokenizer.ggml.eos_token_id")]
    eos: Option<u32>,
    #[serde(rename = "tokenizer.ggml.unknown_token_id")]
    unk: Option<u32>,
    #[serde(rename = "tokenizer.ggml.add_bos_token")]
    add_bos: Option<bool>,
    #[serde(rename = "tokenizer.ggml.add_eos_token")]
    add_eos: Option<bool>,
    #[serde(rename = "tokenizer.ggml.add_space_prefix")]
    add_space_prefix: Option<bool>,
}

impl Metadata {
    fn into_vocabulary(self) -> Result<Vocabulary, Box<dyn Error>> {
        let mut vocabulary = match self.model.as_str() {
            "llama" => Vocabulary::sentence_piece(self.tokens, self.scores),
            "gpt2" => {
                let pre = self.pre.unwrap_or_else(|| "default".to_owned());
                Vocabulary::byte_level(pre, self.tokens, self.merges)
            }
            other => return Err(format!("a vocabulary of kind {other}").into()),
        };
        vocabulary.token_types = self.token_types.into_iter().map(TokenType::from).collect();
        vocabulary.bos = self.bos.or(vocabulary.bos);
        vocabulary.eos = self.eos.or(vocabulary.eos);
        vocabulary.unk = self.unk.or(vocabulary.unk);
        vocabulary.add_bos = self.add_bos.unwrap_or(vocabulary.add_bos);
        vocabulary.add_eos = self.add_eos.unwrap_or(vocabulary.add_eos);
        if let VocabularyKind::SentencePiece { space_prefix, .. } = &mut vocabulary.kind
            && self.add_space_prefix == Some(false)
        {
            *space_prefix = SpacePrefix::Never;
        }
        Ok(vocabulary)
    }
}
