//! What a `tokenizer.json` may hold, checked before the tokenizers library builds it.
//!
//! The library panics on some parts, and multiplies text by others without end; none is one that a model of the LLaVA
//! family has. Truncation and padding are left out, as transformers does: a prompt is never cut behind its user's back.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::DataError;

/// The most steps of one part: each may double a text.
const MOST_STEPS: usize = 8;
/// The longest expression, in bytes; Llama 3's has 130.
const LONGEST_EXPRESSION: usize = 2048;
/// The most copies that the counts of an expression may ask for together.
const MOST_COPIES: u64 = 1000;

/// Reads the text of a `tokenizer.json`; `path` is named in errors.
///
/// # Errors
/// If it is no tokenizer, or one with parts that are not computed here.
pub(crate) fn read(path: &Path, text: &str) -> Result<tokenizers::Tokenizer, DataError> {
    let parse = |source| DataError::ParseJson {
        path: path.to_owned(),
        expected: "a tokenizer",
        source,
    };
    let file: File = serde_json::from_str(text).map_err(parse)?;
    let model: Model = serde_json::from_str(file.model.get()).map_err(parse)?;
    file.check(&model).map_err(|wrong| wrong.error(path))?;
    // Written anew, so that the library sees what was checked and nothing else.
    let checked = serde_json::to_vec(&file).map_err(parse)?;
    tokenizers::Tokenizer::from_bytes(checked).map_err(|source| DataError::LoadTokenizer {
        path: path.to_owned(),
        source,
    })
}

#[derive(Deserialize, Serialize)]
struct File<'a> {
    version: String,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    added_tokens: Option<&'a RawValue>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    #[serde(borrow)]
    model: &'a RawValue,
}

/// The fields of a model that are not passed on unseen.
#[derive(Deserialize)]
struct Model {
    r#type: Option<String>,
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

/// A part that is not computed here.
struct Wrong {
    part: &'static str,
    found: String,
    expected: &'static str,
}

impl Wrong {
    fn new(part: &'static str, found: impl ToString, expected: &'static str) -> Self {
        const SHOWN: usize = 80;
        Self {
            part,
            found: found.to_string().chars().take(SHOWN).collect(),
            expected,
        }
    }

    fn error(self, path: &Path) -> DataError {
        DataError::TokenizerPart {
            path: path.to_owned(),
            part: self.part,
            found: self.found,
            expected: self.expected,
        }
    }
}

impl File<'_> {
    fn check(&self, model: &Model) -> Result<(), Wrong> {
        model.check()?;
        for step in steps("normalizer", &self.normalizer, "normalizers")? {
            normalizer(step)?;
        }
        for step in steps("pre_tokenizer", &self.pre_tokenizer, "pretokenizers")? {
            pre_tokenizer(step)?;
        }
        for step in steps("post_processor", &self.post_processor, "processors")? {
            post_processor(step)?;
        }
        for step in steps("decoder", &self.decoder, "decoders")? {
            decoder(step)?;
        }
        Ok(())
    }
}

impl Model {
    fn check(&self) -> Result<(), Wrong> {
        // Files from before 2020 do not say the type, and are all byte-pair encoding here.
        if let Some(found) = self.r#type.as_deref().filter(|found| *found != "BPE") {
            return Err(Wrong::new("model.type", found, "BPE"));
        }
        if let Some(found) = self.dropout.filter(|dropout| *dropout != 0.0) {
            return Err(Wrong::new("model.dropout", found, "none"));
        }
        for (part, affix) in [
            (
                "model.continuing_subword_prefix",
                &self.continuing_subword_prefix,
            ),
            ("model.end_of_word_suffix", &self.end_of_word_suffix),
        ] {
            if let Some(found) = affix.as_deref().filter(|affix| !affix.is_empty()) {
                return Err(Wrong::new(part, found, "none"));
            }
        }
        Ok(())
    }
}

/// The steps of a part, sequences unrolled.
fn steps<'a>(
    part: &'static str,
    value: &'a Option<Value>,
    list: &str,
) -> Result<Vec<&'a Value>, Wrong> {
    let mut found = Vec::new();
    let mut waiting: Vec<&Value> = value.iter().collect();
    while let Some(step) = waiting.pop() {
        if kind(step) == "Sequence" {
            let inner = step.get(list).and_then(Value::as_array);
            waiting.extend(inner.into_iter().flatten());
        } else {
            found.push(step);
        }
    }
    if found.len() > MOST_STEPS {
        return Err(Wrong::new(part, found.len(), "at most 8 steps"));
    }
    Ok(found)
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn normalizer(step: &Value) -> Result<(), Wrong> {
    const PART: &str = "normalizer";
    match kind(step) {
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "Strip" | "StripAccents" => Ok(()),
        "Prepend" => short(PART, step.get("prepend")),
        "Replace" => replacement(PART, step),
        _ => Err(Wrong::new(
            PART,
            step,
            "Prepend, Replace, Strip, StripAccents, Lowercase, NFC, NFD, NFKC and NFKD",
        )),
    }
}

fn pre_tokenizer(step: &Value) -> Result<(), Wrong> {
    const PART: &str = "pre_tokenizer";
    match kind(step) {
        "ByteLevel" | "Metaspace" | "Digits" | "Punctuation" | "Whitespace" | "WhitespaceSplit" => {
            Ok(())
        }
        "Split" => pattern(PART, step.get("pattern")),
        _ => Err(Wrong::new(
            PART,
            step,
            "Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace and WhitespaceSplit",
        )),
    }
}

fn post_processor(step: &Value) -> Result<(), Wrong> {
    const PART: &str = "post_processor";
    match kind(step) {
        "ByteLevel" => Ok(()),
        "TemplateProcessing" => template(step),
        _ => Err(Wrong::new(PART, step, "TemplateProcessing and ByteLevel")),
    }
}

fn decoder(step: &Value) -> Result<(), Wrong> {
    const PART: &str = "decoder";
    match kind(step) {
        "ByteLevel" | "Metaspace" | "ByteFallback" | "Fuse" => Ok(()),
        "Replace" => replacement(PART, step),
        // The library counts back past the start of a shorter token.
        "Strip" if step.get("stop").and_then(Value::as_u64) == Some(0) => Ok(()),
        _ => Err(Wrong::new(
            PART,
            step,
            "Replace, ByteFallback, Fuse, Strip at the start, ByteLevel and Metaspace",
        )),
    }
}

/// Special tokens that are there, around the text, which comes once.
fn template(step: &Value) -> Result<(), Wrong> {
    const PART: &str = "post_processor";
    let known = step.get("special_tokens");
    let single = step.get("single").and_then(Value::as_array);
    let mut texts = 0;
    for piece in single.into_iter().flatten() {
        let id = |kind: &str| piece.get(kind)?.get("id")?.as_str();
        match (id("Sequence"), id("SpecialToken")) {
            (Some("A"), None) => texts += 1,
            (None, Some(token)) if known.is_some_and(|known| is_whole(known.get(token))) => {}
            _ => return Err(Wrong::new(PART, piece, "the text and special tokens")),
        }
    }
    if texts != 1 {
        return Err(Wrong::new(
            PART,
            step,
            "a template with the text in it once",
        ));
    }
    Ok(())
}

/// Whether a special token has a name for each id.
fn is_whole(token: Option<&Value>) -> bool {
    let length = |list: &str| Some(token?.get(list)?.as_array()?.len());
    length("ids").is_some_and(|ids| length("tokens") == Some(ids))
}

/// What is put in place of a match is no longer than what it stands for, in characters.
fn replacement(part: &'static str, step: &Value) -> Result<(), Wrong> {
    pattern(part, step.get("pattern"))?;
    let replaced = step.get("pattern").and_then(|pattern| {
        let text = pattern.get("String")?.as_str()?;
        Some(text.chars().count())
    });
    let content = step.get("content").and_then(Value::as_str);
    let length = content.map_or(0, |content| content.chars().count());
    // An expression matches one character or more, as a rule.
    if length > replaced.unwrap_or(1).max(1) {
        return Err(Wrong::new(
            part,
            step,
            "replacements no longer than what they replace",
        ));
    }
    Ok(())
}

fn short(part: &'static str, text: Option<&Value>) -> Result<(), Wrong> {
    const LONGEST: usize = 16;
    match text.and_then(Value::as_str) {
        Some(text) if text.len() <= LONGEST => Ok(()),
        found => Err(Wrong::new(
            part,
            found.unwrap_or_default(),
            "a prefix of at most 16 bytes",
        )),
    }
}

/// A text or an expression that takes no more memory and time than those of published models.
fn pattern(part: &'static str, pattern: Option<&Value>) -> Result<(), Wrong> {
    let text = |kind: &str| pattern?.get(kind)?.as_str();
    match (text("String"), text("Regex")) {
        (Some(text), None) if !text.is_empty() => Ok(()),
        (None, Some(expression)) if expression.len() <= LONGEST_EXPRESSION => {
            if copies(expression) > MOST_COPIES {
                let expected = "expressions whose counts multiply to at most 1000";
                return Err(Wrong::new(part, expression, expected));
            }
            Ok(())
        }
        _ => Err(Wrong::new(
            part,
            pattern.unwrap_or(&Value::Null),
            "a text, or an expression of at most 2048 bytes",
        )),
    }
}

/// How many copies of a character the counts `{n}` of an expression make, were each within the next.
fn copies(expression: &str) -> u64 {
    let counts = expression.split('{').skip(1).filter_map(|rest| {
        let (counts, _) = rest.split_once('}')?;
        let largest = counts
            .rsplit(',')
            .map(str::trim)
            .find(|count| !count.is_empty())?;
        // What is no number names a class, as in `\p{L}`.
        let digits = largest.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| largest.parse().unwrap_or(u64::MAX).max(1))
    });
    counts.fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
        });
        read(Path::new("tokenizer.json"), &file.to_string()).expect("a tokenizer");
        change(&mut file);
        match read(Path::new("tokenizer.json"), &file.to_string()) {
            Ok(_) => panic!("{file}"),
            Err(error) => error.to_string(),
        }
    }

    /// Each makes the tokenizers library panic, or take memory without end.
    #[test]
    fn parts_that_the_library_cannot_be_trusted_with_are_refused() {
        let strip = json!({"type": "Strip", "content": " ", "start": 0, "stop": 1});
        assert!(refusal(|file| file["decoder"] = strip).contains("decoder"));
        assert!(refusal(|file| file["decoder"] = json!(1)).contains("decoder"));
        let charsmap = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
        assert!(refusal(|file| file["normalizer"] = charsmap).contains("Precompiled"));
        let fixed = json!({"type": "FixedLength", "length": 0});
        assert!(refusal(|file| file["pre_tokenizer"] = fixed).contains("FixedLength"));
        let prefix = json!("long prefix");
        let message = refusal(|file| file["model"]["continuing_subword_prefix"] = prefix);
        assert!(message.contains("continuing_subword_prefix"), "{message}");
        let twice = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = json!({"type": "TemplateProcessing", "single": [twice, twice], "pair": [],
                              "special_tokens": {}});
        assert!(refusal(|file| file["post_processor"] = template).contains("once"));
        let token = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        let template = json!({"type": "TemplateProcessing", "single": [token], "pair": [],
                              "special_tokens": {}});
        assert!(refusal(|file| file["post_processor"] = template).contains("special tokens"));
    }

    #[test]
    fn text_cannot_be_made_to_grow_without_end() {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        assert!(refusal(|file| file["normalizer"] = double).contains("no longer than"));
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        let many = json!({"type": "Sequence", "pretokenizers": vec![bytes; 9]});
        assert!(refusal(|file| file["pre_tokenizer"] = many).contains("8 steps"));
        let expression = json!({"Regex": "((?=a)b{100}){100}"});
        let split = json!({"type": "Split", "pattern": expression, "behavior": "Isolated",
                           "invert": false});
        assert!(refusal(|file| file["pre_tokenizer"] = split).contains("multiply"));
        assert_eq!(copies(r"\p{N}{1,3}| {2,}|[^\p{L}]{4}"), 24);
    }

    /// transformers resets both before every call.
    #[test]
    fn truncation_and_padding_are_left_out() {
        let file = json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 2},
            "padding": {"strategy": {"Fixed": 1_000_000_000_000_u64}, "direction": "Left", "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "a", "pad_to_multiple_of": null},
            "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
            "decoder": null, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
        });
        let tokenizer = read(Path::new("tokenizer.json"), &file.to_string()).expect("a tokenizer");
        let encoding = tokenizer.encode_fast("aaa", true).expect("ids");
        assert_eq!(encoding.get_ids(), [0, 0, 0]);
    }
}
