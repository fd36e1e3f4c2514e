//! Llama-2's `tokenizer.json` from `llama-tokenizer-js`, which carries the tokens and merges of the file that Hugging
//! Face distributes, in base64.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

/// The bytes of a `tokenizer.json` with the tokens and merges of `script`, framed as Llama-2's is.
pub(super) fn tokenizer_json(script: &str) -> Result<Vec<u8>> {
    let tokens = String::from_utf8(constant(script, "llama_vocab_base64")?)?;
    let tokens: Vec<&str> = tokens.split('\n').collect();
    let merges = constant(script, "llama_merges_binary")?;
    ensure!(merges.len() % 4 == 0, "merges are not pairs of 16-bit ids");
    let token = |bytes: [u8; 2]| {
        let id = u16::from_le_bytes(bytes) as usize;
        tokens.get(id).copied().context("a merge of no token")
    };
    let merges = merges
        .chunks_exact(4)
        .map(|pair| {
            let (left, right) = ([pair[0], pair[1]], [pair[2], pair[3]]);
            Ok(json!([token(left)?, token(right)?]))
        })
        .collect::<Result<Vec<Value>>>()?;

    let vocab: Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), id.into()))
        .collect();
    let added: Vec<Value> = tokens
        .iter()
        .take(3)
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let space = "\u{2581}";
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": space},
            {"type": "Replace", "pattern": {"String": " "}, "content": space}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": space}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges},
    });
    Ok(serde_json::to_vec(&json)?)
}

/// What `NAME = "…"` holds, decoded.
fn constant(script: &str, name: &str) -> Result<Vec<u8>> {
    let (_, rest) = script
        .split_once(&format!("{name} = "))
        .with_context(|| format!("the script has no {name}"))?;
    let quote = rest.chars().next().context("the script is cut short")?;
    let text = rest[quote.len_utf8()..].split(quote).next();
    base64(text.unwrap_or_default())
}

fn base64(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => anyhow::bail!("not base64"),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() -> Result<()> {
        let script = r#"const llama_x = "TGxhbWE=";"#;
        assert_eq!(constant(script, "llama_x")?, b"Llama");
        assert_eq!(base64("/+8A")?, [0xFF, 0xEF, 0]);
        assert!(base64("*").is_err());
        Ok(())
    }
}
