//! Registers for a checkpoint that has none, as training starts from them (paper, appendix A.7).

use crate::engine::{Engine, OpenOptions};
use crate::{ModelFiles, VictorError};
use burn::prelude::*;
use burn::tensor::Distribution;
use victor_backend::VictorBackend;
use victor_data::RgbImage;
use victor_model::{PositionMode, ReductionConfig, VlmConfig};
use victor_weights::NewRegisters;

/// Registers to be added, and where visual tokens are dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct AddRegisters {
    /// Registers per image, `M`.
    pub num_registers: usize,
    /// Visual tokens are absent from this layer onward.
    pub drop_layer: usize,
    /// What the registers hold before training.
    pub init: RegisterInit,
}

/// What registers hold before training.
#[derive(Clone, Debug, PartialEq)]
pub enum RegisterInit {
    /// Normally distributed numbers of deviation 0.02, as the decoder's embeddings are.
    Learned {
        /// Equal seeds give equal registers on one backend.
        seed: u64,
    },
    /// Zeros.
    Zeros,
    /// The embedding of the word "Image", in every register.
    ImageToken,
    /// Visual tokens, average-pooled over the grid to `M`, of these pictures in the mean.
    Pooled {
        /// At least one.
        pictures: Vec<RgbImage>,
    },
}

impl AddRegisters {
    /// The config with these registers.
    ///
    /// # Errors
    /// If the model reads text only, or the numbers do not fit it.
    pub(crate) fn config(&self, files: &ModelFiles) -> Result<VlmConfig, VictorError> {
        let mut config = files.config().clone();
        let layers = config.text_config.num_hidden_layers;
        if config.picture.is_none() {
            return Err(VictorError::NoPicturesToReduce);
        }
        let positions = config.text_config.max_position_embeddings;
        if !(1..=positions).contains(&self.num_registers) {
            return Err(VictorError::Option {
                option: "--registers",
                found: self.num_registers.to_string(),
                expected: "at least 1, and no more than the model has positions",
            });
        }
        if !(1..=layers).contains(&self.drop_layer) {
            return Err(VictorError::Option {
                option: "--drop-layer",
                found: format!("{} of {layers} layers", self.drop_layer),
                expected: "1 to the number of layers (which drops nothing)",
            });
        }
        config.visual_token_reduction = Some(ReductionConfig {
            num_registers: self.num_registers,
            drop_layer: self.drop_layer,
            positions: PositionMode::default(),
        });
        Ok(config)
    }

    /// The registers' numbers.
    ///
    /// # Errors
    /// If the checkpoint's embeddings cannot be read, or a picture does not fit the model.
    pub(crate) fn values<B: VictorBackend>(
        &self,
        files: &ModelFiles,
        device: &B::Device,
    ) -> Result<NewRegisters, VictorError> {
        let hidden = files.config().text_config.hidden_size;
        let shape = [self.num_registers, hidden];
        let values = match &self.init {
            RegisterInit::Learned { seed } => {
                B::seed(device, *seed);
                numbers(Tensor::<B, 2>::random(
                    shape,
                    Distribution::Normal(0.0, 0.02),
                    device,
                ))
            }
            RegisterInit::Zeros => vec![0.0; self.num_registers * hidden],
            RegisterInit::ImageToken => image_word(files)?.repeat(self.num_registers),
            RegisterInit::Pooled { pictures } => {
                let engine = Engine::<B>::load(files.clone(), device, &OpenOptions::default())?;
                pooled(&engine, pictures, self.num_registers)?
            }
        };
        Ok(NewRegisters { values })
    }
}

/// The embedding of "Image"; where the vocabulary spells it in pieces, their mean.
fn image_word(files: &ModelFiles) -> Result<Vec<f32>, VictorError> {
    const EMBEDDING: &str = "language_model.embed_tokens.weight";
    let hidden = files.config().text_config.hidden_size;
    let ids = files.tokenizer.encode("Image", false)?;
    let table = files.source.checkpoint.read_f32(EMBEDDING)?;
    let table = table.unwrap_or_default();
    let mut mean = vec![0.0; hidden];
    for id in &ids {
        let row = table.chunks_exact(hidden).nth(*id as usize);
        let row = row.ok_or_else(|| VictorError::TokenBeyondVocabulary {
            id: *id,
            rows: table.len() / hidden,
        })?;
        for (mean, value) in mean.iter_mut().zip(row) {
            *mean += value / ids.len() as f32;
        }
    }
    Ok(mean)
}

fn pooled<B: VictorBackend>(
    engine: &Engine<B>,
    images: &[RgbImage],
    registers: usize,
) -> Result<Vec<f32>, VictorError> {
    let hidden = engine.model.config().text_config.hidden_size;
    let mut mean = vec![0.0; registers * hidden];
    for (image, grid) in images.iter().zip(engine.grids(images)?) {
        let picture = engine.picture(image, grid)?;
        let Some(tokens) = engine.visual_tokens(&[&picture]) else {
            continue;
        };
        let tokens = numbers(tokens);
        let rows: Vec<&[f32]> = tokens.chunks_exact(hidden).collect();
        let pooled = pool(&rows, registers);
        for (mean, value) in mean.iter_mut().zip(pooled) {
            *mean += value / images.len() as f32;
        }
    }
    Ok(mean)
}

/// Adaptive average pooling of visual tokens to `registers` vectors: of a square grid to the factor
/// pair of `registers` nearest a square, else along the sequence. A leading class token is left out.
fn pool(tokens: &[&[f32]], registers: usize) -> Vec<f32> {
    let square = |count: usize| {
        let side = count.isqrt();
        (side * side == count).then_some(side)
    };
    let (tokens, side) = match (square(tokens.len()), square(tokens.len().saturating_sub(1))) {
        (None, Some(side)) if side > 0 => (&tokens[1..], Some(side)),
        (side, _) => (tokens, side),
    };
    let (grid, cells) = match side {
        Some(side) => ([side, side], factor_pair(registers)),
        None => ([1, tokens.len()], [1, registers]),
    };
    let span = |cell: usize, cells: usize, size: usize| {
        cell * size / cells..((cell + 1) * size).div_ceil(cells)
    };
    let width = tokens.first().map_or(0, |token| token.len());
    let mut pooled = Vec::with_capacity(registers * width);
    for row in 0..cells[0] {
        for column in 0..cells[1] {
            let mut sum = vec![0.0; width];
            let (rows, columns) = (
                span(row, cells[0], grid[0]),
                span(column, cells[1], grid[1]),
            );
            let count = (rows.len() * columns.len()) as f32;
            for row in rows {
                for token in &tokens[row * grid[1]..][columns.clone()] {
                    for (sum, value) in sum.iter_mut().zip(*token) {
                        *sum += value / count;
                    }
                }
            }
            pooled.extend(sum);
        }
    }
    pooled
}

/// Two factors of a number, nearest each other, the smaller first.
fn factor_pair(number: usize) -> [usize; 2] {
    let small = (1..=number.isqrt())
        .rev()
        .find(|factor| number.is_multiple_of(*factor))
        .unwrap_or(1);
    [small, number / small]
}

fn numbers<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.as_slice().unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(count: usize) -> Vec<Vec<f32>> {
        (0..count).map(|at| vec![at as f32, -1.0]).collect()
    }

    fn pooled(count: usize, registers: usize) -> Vec<f32> {
        let tokens = tokens(count);
        let rows: Vec<&[f32]> = tokens.iter().map(Vec::as_slice).collect();
        pool(&rows, registers)
    }

    #[test]
    fn a_grid_is_pooled_by_its_cells() {
        // 4 × 4 to 2 × 2: the mean of 0, 1, 4, 5 and so on.
        let expected = [2.5, -1.0, 4.5, -1.0, 10.5, -1.0, 12.5, -1.0];
        assert_eq!(pooled(16, 4), expected);
        assert_eq!(factor_pair(8), [2, 4]);
        assert_eq!(factor_pair(7), [1, 7]);
    }

    #[test]
    fn a_class_token_is_left_out_and_a_sequence_pooled_along_itself() {
        assert_eq!(pooled(5, 1), [2.5, -1.0]);
        assert_eq!(pooled(6, 3), [0.5, -1.0, 2.5, -1.0, 4.5, -1.0]);
    }

    #[test]
    fn more_registers_than_tokens_repeat_them() {
        assert_eq!(pooled(3, 6).len(), 12);
    }
}
