//! Where every row of a batch comes from, which position it has, and which rows survive the drop.
//!
//! Plain integers, decided before any tensor is touched: `[prefix; x_V; x_R; suffix]` for every image
//! of every sample. Batches are padded on the left, so the last row is always a token. Positions count
//! from the first row laid out; what stands in a cache before it moves them on.

use crate::config::PositionMode;
use std::ops::Range;

/// The ids of one sample with every image marker already repeated once per visual token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids; those inside `image_spans` only hold a place.
    pub ids: Vec<u32>,
    /// Where each image's visual tokens stand in `ids`, in order and without overlap.
    pub image_spans: Vec<Range<usize>>,
}

impl Sequence {
    /// A sample without images.
    pub fn text(ids: Vec<u32>) -> Self {
        Self {
            ids,
            image_spans: Vec::new(),
        }
    }
}

/// What stands in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Left padding, hidden from all tokens.
    Padding,
    /// The embedding of a token.
    Text(u32),
    /// A visual token, counted over all images of the batch.
    Visual(usize),
    /// A visual register.
    Register(usize),
}

/// Why sequences cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// A batch of nothing, or a sample without rows.
    Empty,
    /// An image span is out of order or outside the ids of the sample.
    Span {
        /// Which sample.
        sample: usize,
    },
}

impl std::fmt::Display for LayoutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LayoutError::Empty => f.write_str("a batch needs at least one token in every sample"),
            LayoutError::Span { sample } => {
                write!(
                    f,
                    "sample {sample}: image spans must be in order and inside the ids"
                )
            }
        }
    }
}

impl std::error::Error for LayoutError {}

/// The rows of a padded batch on one side of the drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// Position of every row, counted from the layout's first, `[batch][rows]`; padding has 0.
    pub(crate) positions: Vec<Vec<usize>>,
    /// Which rows hold a token, `[batch][rows]`.
    pub(crate) used: Vec<Vec<bool>>,
    /// The position of the token after the last, `[batch]`.
    pub(crate) next_position: Vec<usize>,
}

impl Side {
    /// One token a sample.
    pub(crate) fn token(batch: usize) -> Self {
        Self {
            positions: vec![vec![0]; batch],
            used: vec![vec![true]; batch],
            next_position: vec![1; batch],
        }
    }
}

/// A batch: its rows, their positions, and what the drop keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchLayout {
    pub(crate) rows: Vec<Vec<Row>>,
    pub(crate) before: Side,
    /// Rows kept by the drop, `[batch][kept]`, as indices into `rows`.
    pub(crate) kept: Vec<Vec<usize>>,
    pub(crate) after: Side,
}

impl BatchLayout {
    /// Lays out sequences with `num_registers` registers after every image.
    ///
    /// # Errors
    /// If there is nothing to lay out or a span does not fit its ids.
    pub fn new(
        sequences: &[Sequence],
        num_registers: usize,
        positions: PositionMode,
    ) -> Result<Self, LayoutError> {
        if sequences.is_empty() || sequences.iter().any(|sequence| sequence.ids.is_empty()) {
            return Err(LayoutError::Empty);
        }
        let mut visual = 0;
        let mut rows = Vec::with_capacity(sequences.len());
        for (sample, sequence) in sequences.iter().enumerate() {
            let expanded = expand(sequence, num_registers, &mut visual);
            rows.push(expanded.ok_or(LayoutError::Span { sample })?);
        }
        let survivors: Vec<Vec<usize>> = rows.iter().map(|rows| survivors(rows)).collect();
        let length = rows.iter().map(Vec::len).max().unwrap_or(0);
        let kept_length = survivors.iter().map(Vec::len).max().unwrap_or(0);

        let before = side(rows.iter().map(|rows| (0..rows.len()).collect()), length);
        let after_positions = rows
            .iter()
            .zip(&survivors)
            .map(|(rows, kept)| match positions {
                PositionMode::Original => (kept.clone(), rows.len()),
                PositionMode::Compact => ((0..kept.len()).collect(), kept.len()),
            });
        let (after_positions, next): (Vec<_>, Vec<_>) = after_positions.unzip();
        let mut after = side(after_positions.into_iter(), kept_length);
        after.next_position = next;

        let kept = rows.iter().zip(survivors).map(|(rows, kept)| {
            let pad = length - rows.len();
            // Padding rows of the kept side may hold any row: they are hidden.
            let mut indices = vec![0; kept_length - kept.len()];
            indices.extend(kept.iter().map(|row| row + pad));
            indices
        });
        let kept = kept.collect();
        let rows = rows
            .into_iter()
            .map(|rows| pad_left(rows, length, Row::Padding))
            .collect();
        Ok(Self {
            rows,
            before,
            kept,
            after,
        })
    }

    /// Gives every row the position it would have if all `full` visual tokens of each picture were
    /// there, where the sequences hold only those `chosen`: for the pictures of the batch in order, the
    /// places of their visual tokens among `full`, ascending.
    ///
    /// [`PositionMode::Compact`] renumbers what survives the drop as before.
    ///
    /// # Panics
    /// If `chosen` does not hold one place for each visual token.
    pub fn spread(&mut self, chosen: &[Vec<usize>], full: usize) {
        let mut places = chosen.iter().flatten();
        let mut counts = chosen.iter().map(Vec::len);
        for (sample, rows) in self.rows.iter().enumerate() {
            let original = self.before.positions[sample].clone();
            let positions = &mut self.before.positions[sample];
            // What the pictures so far lack, and where the picture under way began.
            let (mut lacking, mut began) = (0, None);
            for (position, row) in positions.iter_mut().zip(rows) {
                match row {
                    Row::Padding => {}
                    Row::Visual(_) => {
                        let start = *began.get_or_insert(*position + lacking);
                        *position = start + places.next().expect("a place for each visual token");
                    }
                    _ => {
                        if began.take().is_some() {
                            lacking += full - counts.next().expect("a picture's places");
                        }
                        *position += lacking;
                    }
                }
            }
            if began.is_some() {
                lacking += full - counts.next().expect("a picture's places");
            }
            self.before.next_position[sample] += lacking;
            let kept = self.kept[sample].iter().zip(&self.after.used[sample]);
            let survivors: Vec<usize> = kept
                .filter(|(_, used)| **used)
                .map(|(row, _)| *row)
                .collect();
            let after = &mut self.after.positions[sample];
            let pad = after.len() - survivors.len();
            let was_original = survivors
                .iter()
                .zip(&after[pad..])
                .all(|(row, position)| original[*row] == *position);
            if was_original {
                for (position, row) in after[pad..].iter_mut().zip(&survivors) {
                    *position = self.before.positions[sample][*row];
                }
                self.after.next_position[sample] = self.before.next_position[sample];
            }
        }
    }

    /// Samples.
    pub fn batch(&self) -> usize {
        self.rows.len()
    }

    /// Rows of every sample before the drop, padding included.
    pub fn len(&self) -> usize {
        self.rows[0].len()
    }

    /// Whether there is no row; never so for a layout that could be made.
    pub fn is_empty(&self) -> bool {
        self.rows[0].is_empty()
    }

    /// Rows of every sample after the drop, padding included.
    pub fn kept_len(&self) -> usize {
        self.kept[0].len()
    }

    /// The rows of every sample, left padding first.
    pub fn rows(&self) -> &[Vec<Row>] {
        &self.rows
    }

    /// The rows that survive the drop as indices into the full rows, left padding first.
    pub fn kept(&self) -> &[Vec<usize>] {
        &self.kept
    }

    /// What stands in the rows that survive the drop, left padding first.
    pub fn kept_rows(&self) -> Vec<Vec<Row>> {
        let samples = self.rows.iter().zip(&self.kept).zip(&self.after.used);
        let row = |rows: &Vec<Row>, index: usize, used: bool| {
            if used { rows[index] } else { Row::Padding }
        };
        samples
            .map(|((rows, kept), used)| {
                kept.iter()
                    .zip(used)
                    .map(|(index, used)| row(rows, *index, *used))
                    .collect()
            })
            .collect()
    }

    /// How many visual tokens the batch expects.
    pub fn visual_tokens(&self) -> usize {
        let visual = |row: &&Row| matches!(row, Row::Visual(_));
        self.rows.iter().flatten().filter(visual).count()
    }
}

/// The rows of one sample; `None` when a span does not fit.
fn expand(sequence: &Sequence, num_registers: usize, visual: &mut usize) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    let mut at = 0;
    for span in &sequence.image_spans {
        if span.start < at || span.end < span.start || span.end > sequence.ids.len() {
            return None;
        }
        rows.extend(sequence.ids[at..span.start].iter().copied().map(Row::Text));
        rows.extend((*visual..*visual + span.len()).map(Row::Visual));
        rows.extend((0..num_registers).map(Row::Register));
        *visual += span.len();
        at = span.end;
    }
    rows.extend(sequence.ids[at..].iter().copied().map(Row::Text));
    Some(rows)
}

fn survivors(rows: &[Row]) -> Vec<usize> {
    let kept = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| !matches!(row, Row::Visual(_)));
    kept.map(|(index, _)| index).collect()
}

fn side(positions: impl Iterator<Item = Vec<usize>>, length: usize) -> Side {
    let mut side = Side {
        positions: Vec::new(),
        used: Vec::new(),
        next_position: Vec::new(),
    };
    for positions in positions {
        side.next_position.push(positions.len());
        side.used
            .push(pad_left(vec![true; positions.len()], length, false));
        side.positions.push(pad_left(positions, length, 0));
    }
    side
}

fn pad_left<T: Clone>(values: Vec<T>, length: usize, padding: T) -> Vec<T> {
    let mut padded = vec![padding; length - values.len()];
    padded.extend(values);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_samples() -> BatchLayout {
        let picture = Sequence {
            ids: vec![5, 9, 9, 9, 6, 7],
            image_spans: std::iter::once(1..4).collect(),
        };
        let text = Sequence::text(vec![8, 8]);
        BatchLayout::new(&[picture, text], 2, PositionMode::Original).expect("fits")
    }

    #[test]
    fn a_choice_of_visual_tokens_leaves_every_row_its_position() {
        let sequence = |tokens: usize| {
            let mut ids = vec![5];
            ids.extend(vec![9; tokens]);
            ids.extend([6, 7]);
            Sequence {
                ids,
                image_spans: std::iter::once(1..1 + tokens).collect(),
            }
        };
        let text = Sequence::text(vec![8, 8]);
        for mode in [PositionMode::Original, PositionMode::Compact] {
            let full = BatchLayout::new(&[text.clone(), sequence(6)], 2, mode).expect("fits");
            let mut some = BatchLayout::new(&[text.clone(), sequence(3)], 2, mode).expect("fits");
            some.spread(&[vec![0, 2, 5]], 6);
            assert_eq!(some.before.positions[1], [0, 1, 3, 6, 7, 8, 9, 10]);
            assert_eq!(some.after, full.after);
            assert_eq!(some.before.next_position, full.before.next_position);
        }
    }

    #[test]
    fn registers_follow_their_image_and_padding_is_left() {
        use Row::*;
        let layout = two_samples();
        let picture = [
            Text(5),
            Visual(0),
            Visual(1),
            Visual(2),
            Register(0),
            Register(1),
            Text(6),
        ];
        assert_eq!(layout.rows[0][..7], picture);
        assert_eq!(layout.rows[1][..6], [Padding; 6]);
        assert_eq!(layout.visual_tokens(), 3);
    }

    #[test]
    fn survivors_keep_their_positions() {
        let layout = two_samples();
        assert_eq!(layout.kept[0], [0, 4, 5, 6, 7]);
        assert_eq!(layout.after.positions[0], [0, 4, 5, 6, 7]);
        assert_eq!(layout.after.next_position, [8, 2]);
        assert_eq!(layout.after.used[1], [false, false, false, true, true]);
        assert_eq!(layout.kept[1][3..], [6, 7]);
    }

    #[test]
    fn compact_positions_have_no_gap() {
        let picture = Sequence {
            ids: vec![5, 9, 9, 6],
            image_spans: std::iter::once(1..3).collect(),
        };
        let layout = BatchLayout::new(&[picture], 1, PositionMode::Compact).expect("fits");
        assert_eq!(layout.after.positions, [[0, 1, 2]]);
        assert_eq!(layout.after.next_position, [3]);
        assert_eq!(layout.before.next_position, [5]);
    }

    #[test]
    fn spans_outside_the_ids_are_refused() {
        let bad = Sequence {
            ids: vec![1, 2],
            image_spans: std::iter::once(1..4).collect(),
        };
        let error = BatchLayout::new(&[bad], 0, PositionMode::Original);
        assert_eq!(error, Err(LayoutError::Span { sample: 0 }));
        assert_eq!(
            BatchLayout::new(&[], 0, PositionMode::Original),
            Err(LayoutError::Empty)
        );
    }
}
