//! Makes room in a prompt for the visual tokens.

use std::ops::Range;

use crate::DataError;

/// Token ids in which every picture holds as many places as it has visual tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandedPrompt {
    /// The ids.
    pub ids: Vec<u32>,
    /// Where each picture's places are, in the order of the pictures.
    pub spans: Vec<Range<usize>>,
}

/// Replaces the i-th `image_token_id` by `counts[i]` copies of itself.
///
/// # Errors
/// If there are not as many image ids as counts.
pub fn expand_image_tokens(
    ids: &[u32],
    image_token_id: u32,
    counts: &[usize],
) -> Result<ExpandedPrompt, DataError> {
    let markers = ids.iter().filter(|&&id| id == image_token_id).count();
    if markers != counts.len() {
        return Err(DataError::ImageCount {
            markers,
            pictures: counts.len(),
        });
    }
    let mut remaining = counts.iter();
    let mut expanded = Vec::with_capacity(ids.len() + counts.iter().sum::<usize>());
    let mut spans = Vec::with_capacity(counts.len());
    for &id in ids {
        let copies = match remaining.as_slice().first() {
            Some(&count) if id == image_token_id => {
                remaining.next();
                spans.push(expanded.len()..expanded.len() + count);
                count
            }
            _ => 1,
        };
        expanded.extend(std::iter::repeat_n(id, copies));
    }
    Ok(ExpandedPrompt {
        ids: expanded,
        spans,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_follow_the_pictures_before_them() -> Result<(), DataError> {
        let prompt = expand_image_tokens(&[1, 9, 2, 9, 3], 9, &[3, 2])?;
        assert_eq!(prompt.ids, [1, 9, 9, 9, 2, 9, 9, 3]);
        assert_eq!(prompt.spans, [1..4, 5..7]);
        Ok(())
    }

    #[test]
    fn text_alone_is_left_alone() -> Result<(), DataError> {
        let prompt = expand_image_tokens(&[1, 2], 9, &[])?;
        assert_eq!(prompt.ids, [1, 2]);
        assert!(prompt.spans.is_empty());
        Ok(())
    }

    #[test]
    fn a_mismatch_names_both_numbers() {
        let error = expand_image_tokens(&[1, 9, 2], 9, &[4, 4]).expect_err("a mismatch");
        let text = error.to_string();
        assert!(
            text.contains("1 `<image>`") && text.contains("2 pictures"),
            "{text}"
        );
    }
}
