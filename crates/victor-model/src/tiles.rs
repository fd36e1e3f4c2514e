//! The order of LLaVA-NeXT's visual tokens: a thumbnail, then the tiles read as one picture without its
//! padding, with a newline after each row of patches.
//!
//! Source: transformers `modeling_llava_next.py` (`pack_image_features`, `unpad_image`).

use std::ops::Range;

/// How the tiles of a picture stand: what tells which patches are padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileGrid {
    /// Rows of tiles; 0 for a picture that has its thumbnail only.
    pub rows: usize,
    /// Columns of tiles.
    pub columns: usize,
    /// The picture's own height in pixels.
    pub height: usize,
    /// The picture's own width in pixels.
    pub width: usize,
}

impl TileGrid {
    /// A picture that fills `rows × columns` tiles.
    pub fn whole(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            height: rows,
            width: columns,
        }
    }

    /// Views the tower sees: the thumbnail and the tiles.
    pub fn views(&self) -> usize {
        1 + self.rows * self.columns
    }

    /// Visual tokens of the picture, newlines included, where a view has `side × side` patches.
    pub fn visual_tokens(&self, side: usize) -> usize {
        let (rows, columns) = self.kept(side);
        side * side + rows.len() * (columns.len() + 1) + usize::from(self.views() == 1)
    }

    /// The visual tokens in order: the patch each is, counted over all views, or `None` for a newline.
    pub(crate) fn tokens(&self, side: usize) -> Vec<Option<usize>> {
        let patches = side * side;
        let mut tokens: Vec<Option<usize>> = (0..patches).map(Some).collect();
        if self.views() == 1 {
            tokens.push(None);
            return tokens;
        }
        let (rows, columns) = self.kept(side);
        for row in rows {
            for column in columns.clone() {
                let tile = row / side * self.columns + column / side;
                let patch = row % side * side + column % side;
                tokens.push(Some((1 + tile) * patches + patch));
            }
            tokens.push(None);
        }
        tokens
    }

    /// The rows and columns of patches that are not padding. The picture was fitted into the tiles, so
    /// one axis is full and the other padded on both sides alike.
    fn kept(&self, side: usize) -> (Range<usize>, Range<usize>) {
        let (rows, columns) = (self.rows * side, self.columns * side);
        let (height, width) = (self.height as f64, self.width as f64);
        if rows == 0 || columns == 0 {
            return (0..0, 0..0);
        }
        if width / height > columns as f64 / rows as f64 {
            (middle(rows, height * (columns as f64 / width)), 0..columns)
        } else {
            (0..rows, middle(columns, width * (rows as f64 / height)))
        }
    }
}

/// What is left of `full` when both ends lose half of what `length` leaves over, rounded down.
fn middle(full: usize, length: f64) -> Range<usize> {
    // Python's `int(round(length, 7))`: a product that misses a whole number by its rounding still is one.
    let length = (length * 1e7).round() / 1e7;
    let padding = full.saturating_sub(length as usize) / 2;
    padding..full - padding
}
