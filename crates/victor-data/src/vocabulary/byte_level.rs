//! Byte-level byte-pair encoding, GPT-2's: how words are cut out of text before they are merged.
//!
//! Names and expressions are those of llama.cpp's `llama-vocab.cpp`, in the spelling of the models' `tokenizer.json`.

use serde_json::{Value, json};
use tokenizers::models::bpe::{self, Vocab};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use super::{VocabularyProblem, around, finish, part};

/// The names of pre-tokenizers that are understood, as GGUF's `tokenizer.ggml.pre` has them.
pub const PRE_TOKENIZERS: &[&str] = &[
    "llama-bpe",
    "llama3",
    "llama-v3",
    "qwen2",
    "deepseek-r1-qwen",
    "smollm",
    "starcoder",
    "refact",
    "gpt-2",
    "default",
];

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How words are cut: each expression cuts what the ones before it left.
struct Cut {
    expressions: &'static [&'static str],
    /// Whether text is composed first, as the model's own tokenizer does.
    compose: bool,
    /// Whether a word that is a token is left whole, whatever the merges say.
    whole_words: bool,
}

fn cut(name: &str) -> Option<Cut> {
    let plain = |expressions| Cut {
        expressions,
        compose: false,
        whole_words: false,
    };
    Some(match name {
        "llama-bpe" | "llama3" | "llama-v3" => Cut {
            whole_words: true,
            ..plain(&[LLAMA3])
        },
        "qwen2" | "deepseek-r1-qwen" => Cut {
            compose: true,
            ..plain(&[QWEN2])
        },
        "smollm" | "starcoder" | "refact" => plain(&[r"\p{N}", GPT2]),
        "gpt-2" => plain(&[GPT2]),
        "default" => plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        _ => return None,
    })
}

/// Whether texts begin with `bos` where a file does not say.
pub(super) fn adds_bos(pre_tokenizer: &str) -> bool {
    cut(pre_tokenizer).is_some_and(|cut| cut.whole_words)
}

/// Builds the tokenizer without its special tokens.
pub(super) fn build(
    pre_tokenizer: &str,
    merges: &[String],
    ids: Vocab,
) -> Result<Tokenizer, VocabularyProblem> {
    let cut = cut(pre_tokenizer).ok_or_else(|| VocabularyProblem::PreTokenizer {
        name: pre_tokenizer.to_owned(),
        available: PRE_TOKENIZERS,
    })?;
    let merges: Vec<(String, String)> = merges
        .iter()
        .enumerate()
        .map(|(index, merge)| pair(index, merge))
        .collect::<Result<_, _>>()?;
    let builder = bpe::BPE::builder()
        .vocab_and_merges(ids, merges)
        .ignore_merges(cut.whole_words);
    let mut tokenizer = around(finish(builder)?);

    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let mut steps: Vec<Value> = cut
        .expressions
        .iter()
        .map(|expression| {
            json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
        })
        .collect();
    steps.push(level.clone());
    let steps = json!({"type": "Sequence", "pretokenizers": steps});
    if cut.compose {
        tokenizer.with_normalizer(Some(part::<NormalizerWrapper>(json!({"type": "NFC"}))?));
    }
    tokenizer.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(steps)?));
    tokenizer.with_decoder(Some(part::<DecoderWrapper>(level)?));
    Ok(tokenizer)
}

/// The halves of a merge; a token may itself begin with a space.
fn pair(index: usize, merge: &str) -> Result<(String, String), VocabularyProblem> {
    let first = merge.chars().next().map_or(0, char::len_utf8);
    merge[first..]
        .find(' ')
        .map(|at| merge.split_at(first + at))
        .map(|(left, right)| (left.to_owned(), right[1..].to_owned()))
        .filter(|(_, right)| !right.is_empty())
        .ok_or_else(|| VocabularyProblem::Merge {
            index,
            text: merge.to_owned(),
        })
}
