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

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(height: usize, width: usize, rows: usize, columns: usize) -> TileGrid {
        TileGrid {
            rows,
            columns,
            height,
            width,
        }
    }

    /// Rows and columns that transformers 5.23's `unpad_image` leaves of tiles of 24 × 24 patches.
    #[test]
    fn portrait_landscape_and_square_lose_the_right_axis() {
        let table = [
            ((600, 1000), (2, 2), (28, 48)),
            ((1000, 600), (2, 2), (48, 28)),
            ((500, 500), (2, 2), (48, 48)),
            ((333, 1001), (1, 3), (24, 72)),
            ((1001, 333), (3, 1), (72, 24)),
            ((480, 640), (2, 2), (36, 48)),
            ((640, 480), (2, 2), (48, 36)),
            ((100, 299), (1, 2), (16, 48)),
            ((673, 336), (3, 1), (48, 24)),
            ((7, 5), (1, 2), (24, 18)),
            ((1, 2000), (1, 2), (0, 48)),
            ((2000, 1), (1, 2), (24, 0)),
        ];
        for ((height, width), (rows, columns), expected) in table {
            let (kept_rows, kept_columns) = grid(height, width, rows, columns).kept(24);
            let kept = (kept_rows.len(), kept_columns.len());
            assert_eq!(kept, expected, "{height} × {width}");
        }
    }

    /// Every patch written to its place in the whole picture, then the padding cut off in integers.
    fn slow(grid: TileGrid, side: usize) -> Vec<Option<usize>> {
        let (rows, columns) = (grid.rows * side, grid.columns * side);
        let mut canvas = vec![vec![0; columns]; rows];
        let mut patch = side * side;
        for tile_row in 0..grid.rows {
            for tile_column in 0..grid.columns {
                for y in 0..side {
                    for x in 0..side {
                        canvas[tile_row * side + y][tile_column * side + x] = patch;
                        patch += 1;
                    }
                }
            }
        }
        if grid.width * rows > columns * grid.height {
            let inner = grid.height * columns / grid.width;
            for _ in 0..(rows - inner) / 2 {
                canvas.pop();
                canvas.remove(0);
            }
        } else {
            let inner = grid.width * rows / grid.height;
            for _ in 0..(columns - inner) / 2 {
                for row in &mut canvas {
                    row.pop();
                    row.remove(0);
                }
            }
        }
        let mut tokens: Vec<Option<usize>> = (0..side * side).map(Some).collect();
        for row in canvas {
            tokens.extend(row.into_iter().map(Some));
            tokens.push(None);
        }
        tokens
    }

    #[test]
    fn tokens_are_those_of_the_slow_statement() {
        for (rows, columns) in [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)] {
            for side in [1, 3, 4] {
                for height in (1..60).step_by(7) {
                    for width in (1..60).step_by(5) {
                        let grid = grid(height, width, rows, columns);
                        let tokens = grid.tokens(side);
                        assert_eq!(tokens, slow(grid, side), "{grid:?}, {side}");
                        assert_eq!(tokens.len(), grid.visual_tokens(side));
                    }
                }
            }
        }
    }

    #[test]
    fn a_thumbnail_alone_ends_in_one_newline() {
        let alone = grid(30, 20, 0, 0);
        assert_eq!(alone.tokens(2), [Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!((alone.views(), alone.visual_tokens(2)), (1, 5));
    }
}
