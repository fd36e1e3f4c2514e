//! Where what a model has seen of a conversation ends in the text of the longer one.

use crate::VictorError;
use victor_data::Tokenizer;

/// Where in `whole` the answer `said` ends, if `whole` goes on from `prompt`, the text that the answer
/// was given to. White space around the answer may differ: templates trim it, and tokenizers hide a
/// leading blank in the first word.
pub(super) fn seam(whole: &str, prompt: &str, said: &str) -> Option<usize> {
    let rest = whole.strip_prefix(prompt)?;
    if said.is_empty() {
        return Some(prompt.len());
    }
    let rest = rest.trim_start();
    let start = whole.len() - rest.len();
    [said.trim_start(), said.trim()]
        .iter()
        .find_map(|said| rest.starts_with(said).then_some(start + said.len()))
}

/// The ids of `whole` behind `seam`; `None` if they are not the same with and without what stands
/// before, as where a token reaches over the seam.
pub(super) fn ids_behind(
    encode: impl Fn(&str) -> Result<Vec<u32>, VictorError>,
    whole: &str,
    seam: usize,
) -> Result<Option<Vec<u32>>, VictorError> {
    let before = encode(&whole[..seam])?;
    let all = encode(whole)?;
    Ok(all.strip_prefix(&before[..]).map(<[u32]>::to_vec))
}

/// How many of `ids` make up the text `shown`, those that show nothing included; `None` if it ends
/// within a token.
pub(super) fn ids_of(tokenizer: &Tokenizer, ids: &[u32], shown: &str) -> Option<usize> {
    for count in (0..=ids.len()).rev() {
        let text = tokenizer.decode(&ids[..count], true).ok()?;
        if text == shown {
            return Some(count);
        }
        if text.len() < shown.len() {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::seam;

    #[test]
    fn the_answer_may_differ_in_white_space_only() {
        let whole = "USER: a ASSISTANT: A cat. </s>USER: b ASSISTANT:";
        let at = |said| seam(whole, "USER: a ASSISTANT:", said).map(|at| &whole[at..]);
        assert_eq!(at("A cat."), Some(" </s>USER: b ASSISTANT:"));
        assert_eq!(at(" A cat. "), Some("</s>USER: b ASSISTANT:"));
        assert_eq!(at("A cat.\n"), Some(" </s>USER: b ASSISTANT:"));
        assert_eq!(at(""), Some(" A cat. </s>USER: b ASSISTANT:"));
        assert_eq!(at("A dog."), None);
        assert_eq!(seam(whole, "USER: c", "A cat."), None);
    }
}
