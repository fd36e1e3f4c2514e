//! The whole model: picture side → spliced embeddings → decoder with the drop.

use crate::VictorBackend;
use crate::cache::{KvCache, Slots};
use crate::config::{PositionMode, VlmConfig};
use crate::decoder::{Decoder, Rows};
use crate::layers::normal;
use crate::layout::{BatchLayout, LayoutError, Row, Sequence, Side};
use crate::picture::PictureEncoder;
use crate::rope::RotaryTable;
use crate::tiles::TileGrid;
use burn::module::{Module, Param};
use burn::prelude::*;

/// A LLaVA-style model with Victor's registers.
#[derive(Module, Debug)]
pub struct Vlm<B: Backend> {
    /// Pixels to visual tokens; `None` for a model that reads text only.
    pub picture: Option<PictureEncoder<B>>,
    /// The decoder.
    pub language_model: Decoder<B>,
    /// `[num_registers, hidden]`
    pub visual_registers: Option<Param<Tensor<B, 2>>>,
    #[module(skip)]
    config: VlmConfig,
    #[module(skip)]
    rotary: RotaryTable,
}

impl<B: VictorBackend> Vlm<B> {
    /// A model whose weights are drawn when first used, so that loading never draws them.
    pub fn init(config: &VlmConfig, device: &B::Device) -> Self {
        let text = &config.text_config;
        let hidden = text.hidden_size;
        let registers = config.num_registers();
        let picture = config.picture.as_ref();
        Self {
            picture: picture.map(|picture| PictureEncoder::init(picture, hidden, device)),
            language_model: Decoder::init(text, device),
            visual_registers: (registers > 0).then(|| normal([registers, hidden], 0.02, device)),
            rotary: RotaryTable::new(&text.rope, text.head_dim),
            config: config.clone(),
        }
    }

    /// What the model is made of.
    pub fn config(&self) -> &VlmConfig {
        &self.config
    }

    /// See [`PictureEncoder::encode`].
    ///
    /// # Panics
    /// If the model has no picture side.
    pub fn encode_images(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 3> {
        self.picture().encode(pixel_values)
    }

    /// Visual tokens of pictures that are shown to the tower once each, in order.
    ///
    /// # Shapes
    /// - features: `[images, visual_tokens, vision_hidden]`
    /// - output: `[images · visual_tokens, hidden]`
    ///
    /// # Panics
    /// If the model has no picture side.
    pub fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 2> {
        self.picture().project(features).flatten(0, 1)
    }

    /// Visual tokens of pictures in order, LLaVA-NeXT's tiles put together; see
    /// [`PictureEncoder::merge`].
    ///
    /// # Shapes
    /// - features: `[views, tokens, vision_hidden]`, the views of all pictures in order
    /// - grids: one a picture
    /// - output: `[visual tokens, hidden]`
    ///
    /// # Panics
    /// If the model has no picture side, or the grids do not have as many views as there are.
    pub fn visual_tokens(&self, features: Tensor<B, 3>, grids: &[TileGrid]) -> Tensor<B, 2> {
        let picture = self.picture();
        picture.merge(picture.project(features), grids)
    }

    fn picture(&self) -> &PictureEncoder<B> {
        match &self.picture {
            Some(picture) => picture,
            None => panic!("the model has no picture side"),
        }
    }

    /// Lays out sequences with this model's registers.
    ///
    /// # Errors
    /// See [`BatchLayout::new`].
    pub fn layout(&self, sequences: &[Sequence]) -> Result<BatchLayout, LayoutError> {
        let positions = match &self.config.visual_token_reduction {
            Some(reduction) if self.config.drop_layer().is_some() => reduction.positions,
            _ => PositionMode::Original,
        };
        BatchLayout::new(sequences, self.config.num_registers(), positions)
    }

    /// The decoder's input rows: text embeddings, visual tokens and registers in their places.
    ///
    /// # Shapes
    /// - visual: `[visual tokens of the batch, hidden]`
    /// - output: `[batch, rows, hidden]`
    ///
    /// # Panics
    /// If `visual` does not hold as many rows as the layout has visual tokens.
    pub fn embed(&self, layout: &BatchLayout, visual: Option<Tensor<B, 2>>) -> Tensor<B, 3> {
        let device = &self.device();
        let given = visual.as_ref().map_or(0, |visual| visual.dims()[0]);
        assert_eq!(
            given,
            layout.visual_tokens(),
            "visual tokens given and expected differ"
        );

        let mut ids = Vec::new();
        for row in layout.rows.iter().flatten() {
            if let Row::Text(id) = row {
                ids.push(*id as i32);
            }
        }
        let texts = ids.len();
        let mut sources = Vec::new();
        if texts > 0 {
            sources.push(self.language_model.embed(int_tensor(ids, device)));
        }
        sources.extend(visual);
        sources.extend(self.visual_registers.as_ref().map(Param::val));

        let mut text = 0;
        let index = layout.rows.iter().flatten().map(|row| match *row {
            Row::Padding => 0,
            Row::Text(_) => {
                text += 1;
                text - 1
            }
            Row::Visual(token) => (texts + token) as i32,
            Row::Register(register) => (texts + given + register) as i32,
        });
        let index = int_tensor(index.collect(), device);
        let rows = Tensor::cat(sources, 0).select(0, index);
        rows.reshape([
            layout.batch(),
            layout.len(),
            self.config.text_config.hidden_size,
        ])
    }

    /// Runs all layers on embedded rows and drops the visual ones on the way.
    ///
    /// With a cache, the rows stand behind those it holds and are appended to it.
    ///
    /// # Shapes
    /// - embeds: `[batch, rows, hidden]`, as [`embed`](Self::embed) gives them
    /// - output: `[batch, surviving rows, hidden]`, before the final norm
    ///
    /// # Panics
    /// If the cache holds another number of samples.
    pub fn forward(
        &self,
        layout: &BatchLayout,
        embeds: Tensor<B, 3>,
        mut cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let hidden = self.forward_before_drop(layout, embeds, cache.as_deref_mut());
        self.forward_after_drop(layout, hidden, cache)
    }

    /// Runs the layers that see all rows: those before `drop_layer`, or all where nothing is dropped.
    ///
    /// # Shapes
    /// - embeds, output: `[batch, rows, hidden]`
    ///
    /// # Panics
    /// If the cache holds another number of samples.
    pub fn forward_before_drop(
        &self,
        layout: &BatchLayout,
        embeds: Tensor<B, 3>,
        cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        self.run_before(&layout.before, embeds, cache)
    }

    fn run_before(
        &self,
        side: &Side,
        hidden: Tensor<B, 3>,
        mut cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let rows = self.rows(side, cache.as_deref_mut().map(|cache| &mut cache.before));
        self.language_model
            .run(hidden, 0..self.first_dropped(), &rows, cache)
    }

    /// Drops the visual rows and runs the remaining layers; the identity where nothing is dropped.
    ///
    /// # Shapes
    /// - hidden: `[batch, rows, hidden]`
    /// - output: `[batch, surviving rows, hidden]`
    ///
    /// # Panics
    /// If the cache holds another number of samples, or no row survives.
    pub fn forward_after_drop(
        &self,
        layout: &BatchLayout,
        hidden: Tensor<B, 3>,
        cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        if self.config.drop_layer().is_none() {
            return hidden;
        }
        self.run_after(&layout.after, keep_rows(hidden, &layout.kept), cache)
    }

    fn run_after(
        &self,
        side: &Side,
        hidden: Tensor<B, 3>,
        mut cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let layers = self.config.text_config.num_hidden_layers;
        let rows = self.rows(side, cache.as_deref_mut().map(|cache| &mut cache.after));
        self.language_model
            .run(hidden, self.first_dropped()..layers, &rows, cache)
    }

    /// The first layer without visual tokens; the number of layers where all have them.
    fn first_dropped(&self) -> usize {
        self.config
            .drop_layer()
            .unwrap_or(self.config.text_config.num_hidden_layers)
    }

    /// Claims the slots of new rows behind those there are.
    fn rows(&self, side: &Side, cached: Option<&mut Slots>) -> Rows<B> {
        let device = &self.device();
        let mut fresh = Slots::default();
        let slots = cached.unwrap_or(&mut fresh);
        slots.begin(side.used.len());
        let moved = side.positions.iter().zip(&slots.next_position);
        let positions: Vec<Vec<usize>> = moved
            .map(|(positions, start)| positions.iter().map(|at| start + at).collect())
            .collect();
        slots.extend(&side.used, &side.next_position);
        Rows {
            rotary: self.rotary.rotary(&positions, device),
            mask: slots.mask(side.used[0].len(), device),
        }
    }

    /// What stands in the rows [`forward`](Self::forward) returns, `[batch][surviving rows]`.
    pub fn output_rows(&self, layout: &BatchLayout) -> Vec<Vec<Row>> {
        if self.config.drop_layer().is_none() {
            return layout.rows.clone();
        }
        layout.kept_rows()
    }

    /// Appends rows to the cache and returns the logits of the next token: the head sees the last
    /// row only.
    ///
    /// A sequence may be fed in parts, one call each: into a filled cache go the rows that follow.
    ///
    /// # Shapes
    /// - output: `[batch, vocab]`
    ///
    /// # Panics
    /// If the cache holds another number of samples.
    pub fn prefill(
        &self,
        layout: &BatchLayout,
        visual: Option<Tensor<B, 2>>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 2> {
        let hidden = self.forward(layout, self.embed(layout, visual), Some(cache));
        let rows = hidden.dims()[1];
        self.language_model
            .logits(hidden.narrow(1, rows - 1, 1))
            .squeeze_dim(1)
    }

    /// Appends one token to every sample and returns the logits of the next.
    ///
    /// # Shapes
    /// - tokens: one id a sample
    /// - output: `[batch, vocab]`
    ///
    /// # Panics
    /// If the cache holds another number of samples.
    pub fn decode(&self, tokens: &[u32], cache: &mut KvCache<B>) -> Tensor<B, 2> {
        let batch = tokens.len();
        let ids = tokens.iter().map(|id| *id as i32).collect();
        let hidden = self.language_model.embed(int_tensor(ids, &self.device()));
        let hidden = hidden.reshape([batch, 1, self.config.text_config.hidden_size]);

        let token = Side::token(batch);
        let mut hidden = self.run_before(&token, hidden, Some(cache));
        if self.config.drop_layer().is_some() {
            hidden = self.run_after(&token, hidden, Some(cache));
        }
        self.language_model.logits(hidden).squeeze_dim(1)
    }

    /// The device the weights are on.
    pub fn device(&self) -> B::Device {
        self.devices().into_iter().next().unwrap_or_default()
    }
}

/// Gathers the surviving rows of every sample.
///
/// # Shapes
/// - hidden: `[batch, rows, hidden]`
/// - kept: `[batch][kept]`
/// - output: `[batch, kept, hidden]`
fn keep_rows<B: Backend>(hidden: Tensor<B, 3>, kept: &[Vec<usize>]) -> Tensor<B, 3> {
    let device = &hidden.device();
    let [batch, rows, width] = hidden.dims();
    let index = kept
        .iter()
        .enumerate()
        .flat_map(|(sample, kept)| kept.iter().map(move |row| (sample * rows + row) as i32));
    let index = int_tensor(index.collect(), device);
    hidden
        .reshape([batch * rows, width])
        .select(0, index)
        .reshape([batch, kept[0].len(), width])
}

fn int_tensor<B: Backend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
