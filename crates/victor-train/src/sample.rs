//! One conversation as token ids, and which of its tokens are learned from which rows.

use victor_data::{DataError, expand_image_tokens};
use victor_model::{Row, Sequence};

/// A conversation ready for the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Token ids with one marker for each picture.
    pub ids: Vec<u32>,
    /// For each id whether it carries loss: the assistant's words and the stop token.
    pub learned: Vec<bool>,
    /// The pictures, as numbers in the list of all pictures.
    pub images: Vec<u32>,
}

impl Sample {
    /// The rows of the decoder before the drop, without padding.
    pub fn rows(&self, visual_tokens: usize, registers: usize) -> usize {
        // A marker gives way to what it stands for.
        self.ids.len() + self.images.len() * (visual_tokens + registers) - self.images.len()
    }

    /// The ids with `visual_tokens` places for each picture.
    ///
    /// # Errors
    /// If there are not as many markers as pictures.
    pub fn sequence(&self, marker: u32, visual_tokens: usize) -> Result<Sequence, DataError> {
        let counts = vec![visual_tokens; self.images.len()];
        let expanded = expand_image_tokens(&self.ids, marker, &counts)?;
        Ok(Sequence {
            ids: expanded.ids,
            image_spans: expanded.spans,
        })
    }

    /// For each text token, markers left out, whether it carries loss.
    pub(crate) fn learned_text(&self, marker: u32) -> Vec<bool> {
        let text = self.ids.iter().zip(&self.learned);
        text.filter(|(id, _)| **id != marker)
            .map(|(_, learned)| *learned)
            .collect()
    }
}

/// The output rows that carry loss, and what each is to predict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LossRows {
    /// Indices into the flattened `[batch · rows]`.
    pub rows: Vec<i32>,
    /// The token that stands in the row after.
    pub targets: Vec<i32>,
}

impl LossRows {
    /// `output_rows` says what stands in every output row, `learned` which text tokens carry loss.
    ///
    /// A token is predicted by the row just before it, be that a text token, a register or, without
    /// a drop or registers, a visual token. A sample's first token has none and carries no loss.
    pub fn new(output_rows: &[Vec<Row>], learned: &[Vec<bool>]) -> Self {
        let mut selected = Self::default();
        let width = output_rows.first().map_or(0, Vec::len);
        for (sample, (rows, learned)) in output_rows.iter().zip(learned).enumerate() {
            let mut learned = learned.iter();
            let mut before = Row::Padding;
            for (at, row) in rows.iter().enumerate() {
                if let Row::Text(id) = row
                    && learned.next() == Some(&true)
                    && before != Row::Padding
                {
                    selected.rows.push((sample * width + at) as i32 - 1);
                    selected.targets.push(*id as i32);
                }
                before = *row;
            }
        }
        selected
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing carries loss.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use victor_model::{BatchLayout, PositionMode};

    const MARKER: u32 = 99;

    fn samples() -> Vec<Sample> {
        let sample = |ids: &[u32], learned: &[u32], images: &[u32]| Sample {
            ids: ids.to_vec(),
            learned: ids.iter().map(|id| learned.contains(id)).collect(),
            images: images.to_vec(),
        };
        vec![
            sample(&[1, MARKER, 2, 3, 10, 11, 4, 12], &[10, 11, 12], &[0]),
            sample(&[1, 20, 21], &[20, 21], &[]),
            // An answer straight after the picture, and a first token that nothing predicts.
            sample(&[30, MARKER, 31], &[30, 31], &[1]),
        ]
    }

    /// The statement this is checked against: walk each sample's undropped rows, and say for every
    /// token with loss which surviving row stands before it.
    fn by_hand(layout: &BatchLayout, dropped: bool, samples: &[Sample]) -> Vec<(i32, i32)> {
        let mut pairs = Vec::new();
        for (number, sample) in samples.iter().enumerate() {
            let mut alive: Vec<Option<usize>> = Vec::new(); // the id's index, for text rows
            let text = (0..sample.ids.len()).filter(|at| sample.ids[*at] != MARKER);
            let mut text = text.collect::<Vec<_>>().into_iter();
            for row in &layout.rows()[number] {
                match row {
                    Row::Text(_) => alive.push(text.next()),
                    Row::Register(_) => alive.push(None),
                    Row::Visual(_) if !dropped => alive.push(None),
                    _ => {}
                }
            }
            let width = if dropped {
                layout.kept_len()
            } else {
                layout.len()
            };
            let padding = width - alive.len();
            for (at, id) in alive.iter().enumerate().skip(1) {
                if let Some(id) = id
                    && sample.learned[*id]
                {
                    let row = number * width + padding + at - 1;
                    pairs.push((row as i32, sample.ids[*id] as i32));
                }
            }
        }
        pairs
    }

    #[test]
    fn the_row_before_a_learned_token_predicts_it() {
        let samples = samples();
        let sequences: Vec<Sequence> = samples
            .iter()
            .map(|sample| sample.sequence(MARKER, 4).expect("markers match"))
            .collect();
        let learned: Vec<_> = samples.iter().map(|s| s.learned_text(MARKER)).collect();
        for registers in [0, 2] {
            let layout =
                BatchLayout::new(&sequences, registers, PositionMode::Original).expect("laid out");
            for (dropped, rows) in [(true, layout.kept_rows()), (false, layout.rows().to_vec())] {
                let found = LossRows::new(&rows, &learned);
                let pairs: Vec<_> = found.rows.into_iter().zip(found.targets).collect();
                assert_eq!(pairs, by_hand(&layout, dropped, &samples));
                assert_eq!(pairs.len(), 6);
            }
        }
    }

    #[test]
    fn rows_are_those_of_the_layout() {
        for sample in samples() {
            let sequence = sample.sequence(MARKER, 4).expect("markers match");
            let layout =
                BatchLayout::new(&[sequence], 3, PositionMode::Original).expect("laid out");
            assert_eq!(sample.rows(4, 3), layout.len());
        }
    }
}
