//! The whole model: vision tower → projector → spliced embeddings → decoder with the drop.

use crate::VictorBackend;
use crate::cache::{KvCache, Slots};
use crate::config::{PositionMode, VisionSelect, VlmConfig};
use crate::decoder::{Decoder, Kept, Rows};
use crate::layers::normal;
use crate::layout::{BatchLayout, LayoutError, Row, Sequence, Side};
use crate::projector::Projector;
use crate::rope::RotaryTable;
use crate::vision::VisionTower;
use burn::module::{Module, Param};
use burn::prelude::*;

/// A LLaVA-style model with Victor's registers.
#[derive(Module, Debug)]
pub struct Vlm<B: Backend> {
    /// Pixels to features.
    pub vision_tower: VisionTower<B>,
    /// Features to the decoder's embedding space.
    pub multi_modal_projector: Projector<B>,
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
        let (vision, hidden) = (&config.vision_config, text.hidden_size);
        let registers = config.num_registers();
        Self {
            vision_tower: VisionTower::init(vision, config.vision_layers(), device),
            multi_modal_projector: Projector::init(
                &config.projector,
                vision.hidden_size,
                hidden,
                device,
            ),
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

    /// The tower's selected hidden state, without the class token unless the strategy is `full`.
    ///
    /// # Shapes
    /// - pixel_values: `[images, channels, image_size, image_size]`
    /// - output: `[images, visual_tokens, vision_hidden]`
    pub fn encode_images(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 3> {
        let features = self.vision_tower.forward(pixel_values);
        match self.config.vision_feature_select_strategy {
            VisionSelect::Full => features,
            VisionSelect::Default => {
                let tokens = features.dims()[1];
                features.narrow(1, 1, tokens - 1)
            }
        }
    }

    /// Visual tokens of all images in order.
    ///
    /// # Shapes
    /// - features: `[images, visual_tokens, vision_hidden]`
    /// - output: `[images · visual_tokens, hidden]`
    pub fn project(&self, features: Tensor<B, 3>) -> Tensor<B, 2> {
        self.multi_modal_projector.forward(features).flatten(0, 1)
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
    /// Equal to the two halves below, but for the last layer before the drop: there the visual rows
    /// give keys and values only, since nothing reads what else would become of them.
    ///
    /// # Shapes
    /// - embeds: `[batch, rows, hidden]`, as [`embed`](Self::embed) gives them
    /// - output: `[batch, surviving rows, hidden]`, before the final norm
    ///
    /// # Panics
    /// If the cache is not empty.
    pub fn forward(
        &self,
        layout: &BatchLayout,
        embeds: Tensor<B, 3>,
        mut cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let (drop, layers) = (
            self.first_dropped(),
            self.config.text_config.num_hidden_layers,
        );
        if drop == layers {
            return self.forward_before_drop(layout, embeds, cache);
        }
        let mut slots = Slots::default();
        let rows = self.layout_rows(&layout.before, layout.len(), &mut slots);
        let kept = self.kept_rows(layout);
        if let Some(cache) = cache.as_deref_mut() {
            assert!(cache.is_empty(), "a batch is prefilled into an empty cache");
            cache.before = slots;
        }
        let decoder = &self.language_model;
        let hidden = decoder.run(embeds, 0..drop - 1, &rows, cache.as_deref_mut());
        let hidden = decoder.run_keeping(hidden, drop - 1, &rows, &kept, cache.as_deref_mut());
        self.run_kept(layout, hidden, cache)
    }

    /// Runs the layers that see all rows: those before `drop_layer`, or all where nothing is dropped.
    ///
    /// # Shapes
    /// - embeds, output: `[batch, rows, hidden]`
    ///
    /// # Panics
    /// If the cache is not empty.
    pub fn forward_before_drop(
        &self,
        layout: &BatchLayout,
        embeds: Tensor<B, 3>,
        cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let mut slots = Slots::default();
        let rows = self.layout_rows(&layout.before, layout.len(), &mut slots);
        let Some(cache) = cache else {
            return self
                .language_model
                .run(embeds, 0..self.first_dropped(), &rows, None);
        };
        assert!(cache.is_empty(), "a batch is prefilled into an empty cache");
        cache.before = slots;
        self.language_model
            .run(embeds, 0..self.first_dropped(), &rows, Some(cache))
    }

    /// Drops the visual rows and runs the remaining layers; the identity where nothing is dropped.
    ///
    /// # Shapes
    /// - hidden: `[batch, rows, hidden]`
    /// - output: `[batch, surviving rows, hidden]`
    pub fn forward_after_drop(
        &self,
        layout: &BatchLayout,
        hidden: Tensor<B, 3>,
        cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        if self.first_dropped() == self.config.text_config.num_hidden_layers {
            return hidden;
        }
        let hidden = keep_rows(hidden, &layout.kept);
        self.run_kept(layout, hidden, cache)
    }

    /// Runs the layers after the drop on the surviving rows.
    fn run_kept(
        &self,
        layout: &BatchLayout,
        hidden: Tensor<B, 3>,
        mut cache: Option<&mut KvCache<B>>,
    ) -> Tensor<B, 3> {
        let layers = self.config.text_config.num_hidden_layers;
        let mut slots = Slots::default();
        let rows = self.layout_rows(&layout.after, layout.kept_len(), &mut slots);
        if let Some(cache) = cache.as_deref_mut() {
            cache.after = slots;
        }
        self.language_model
            .run(hidden, self.first_dropped()..layers, &rows, cache)
    }

    /// The surviving rows as they ask in the last layer before the drop.
    fn kept_rows(&self, layout: &BatchLayout) -> Kept<B> {
        let device = &self.device();
        let Side {
            positions, used, ..
        } = &layout.before;
        let (batch, kept, rows) = (layout.batch(), layout.kept_len(), layout.len());
        let mut hidden = Vec::with_capacity(batch * kept * rows);
        let mut turned = Vec::with_capacity(batch);
        for ((kept, used), positions) in layout.kept.iter().zip(used).zip(positions) {
            turned.push(kept.iter().map(|row| positions[*row]).collect());
            for row in kept {
                // Any row sees itself, padding too.
                let sees = |slot: usize| slot == *row || (slot < *row && used[slot]);
                hidden.extend((0..rows).map(|slot| !sees(slot)));
            }
        }
        Kept {
            index: kept_index(&layout.kept, rows, device),
            rotary: self.rotary.rotary(&turned, device),
            mask: Tensor::from_data(TensorData::new(hidden, [batch, 1, kept, rows]), device),
        }
    }

    /// The first layer without visual tokens; the number of layers where all have them.
    fn first_dropped(&self) -> usize {
        self.config
            .drop_layer()
            .unwrap_or(self.config.text_config.num_hidden_layers)
    }

    fn layout_rows(&self, side: &Side, length: usize, slots: &mut Slots) -> Rows<B> {
        let device = &self.device();
        slots.extend(&side.used, &side.next_position);
        Rows {
            rotary: self.rotary.rotary(&side.positions, device),
            mask: slots.mask(length, device),
        }
    }

    /// What stands in the rows [`forward`](Self::forward) returns, `[batch][surviving rows]`.
    pub fn output_rows(&self, layout: &BatchLayout) -> Vec<Vec<Row>> {
        if self.config.drop_layer().is_none() {
            return layout.rows.clone();
        }
        layout.kept_rows()
    }

    /// Fills the cache and returns the logits of the next token: the head sees the last row only.
    ///
    /// # Shapes
    /// - output: `[batch, vocab]`
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
    /// If the cache was not filled by [`prefill`](Self::prefill) with as many samples.
    pub fn decode(&self, tokens: &[u32], cache: &mut KvCache<B>) -> Tensor<B, 2> {
        let device = &self.device();
        let batch = tokens.len();
        assert_eq!(
            cache.before.used.len(),
            batch,
            "one token for every cached sample"
        );
        let ids = tokens.iter().map(|id| *id as i32).collect();
        let hidden = self.language_model.embed(int_tensor(ids, device));
        let mut hidden = hidden.reshape([batch, 1, self.config.text_config.hidden_size]);

        let (drop, layers) = (
            self.first_dropped(),
            self.config.text_config.num_hidden_layers,
        );
        let rows = self.next_rows(&mut cache.before, device);
        hidden = self.language_model.run(hidden, 0..drop, &rows, Some(cache));
        if drop < layers {
            let rows = self.next_rows(&mut cache.after, device);
            hidden = self
                .language_model
                .run(hidden, drop..layers, &rows, Some(cache));
        }
        self.language_model.logits(hidden).squeeze_dim(1)
    }

    /// Claims one slot a sample.
    fn next_rows(&self, slots: &mut Slots, device: &B::Device) -> Rows<B> {
        let positions: Vec<Vec<usize>> = slots.next_position.iter().map(|at| vec![*at]).collect();
        let next: Vec<usize> = slots.next_position.iter().map(|at| at + 1).collect();
        slots.extend(&vec![vec![true]; next.len()], &next);
        Rows {
            rotary: self.rotary.rotary(&positions, device),
            mask: slots.mask(1, device),
        }
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
    let [batch, rows, width] = hidden.dims();
    let index = kept_index(kept, rows, &hidden.device());
    hidden
        .reshape([batch * rows, width])
        .select(0, index)
        .reshape([batch, kept[0].len(), width])
}

/// The surviving rows as indices into `[batch · rows]`.
fn kept_index<B: Backend>(
    kept: &[Vec<usize>],
    rows: usize,
    device: &B::Device,
) -> Tensor<B, 1, Int> {
    let samples = kept.iter().enumerate();
    let index =
        samples.flat_map(|(sample, kept)| kept.iter().map(move |row| (sample * rows + row) as i32));
    int_tensor(index.collect(), device)
}

fn int_tensor<B: Backend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
