//! Tiny models of any shape with the same seeded weights on every backend.

use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use victor::VlmConfig;
use victor::parts::backend::VictorBackend;
use victor::parts::model::{
    Activation, PictureConfig, PositionMode, ProjectorConfig, ReductionConfig, RopeConfig,
    Sequence, TextConfig, TileGrid, VisionConfig, VisionFamily, VisionSelect, Vlm,
};

pub(crate) const VOCAB: usize = 64;

/// Any small model.
pub(crate) fn config() -> impl Strategy<Value = VlmConfig> {
    let heads = prop_oneof![Just((2, 1)), Just((4, 2)), Just((3, 3)), Just((4, 1))];
    let sizes = (
        1_usize..=5,
        1_usize..=3,
        any::<bool>(),
        any::<bool>(),
        0_usize..=5,
        1_usize..=5,
    );
    (
        heads,
        prop_oneof![Just(4_usize), Just(8), Just(10)],
        sizes,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(
                (heads, kv_heads),
                head_dim,
                (layers, grid, qkv_bias, tied, registers, drop),
                compact,
                tiles,
            )| {
                build(Shape {
                    hidden: 24,
                    heads,
                    kv_heads,
                    head_dim,
                    layers,
                    grid,
                    qkv_bias,
                    tied,
                    registers,
                    drop: drop.min(layers),
                    positions: if compact {
                        PositionMode::Compact
                    } else {
                        PositionMode::Original
                    },
                    tiles,
                })
            },
        )
}

pub(crate) struct Shape {
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) layers: usize,
    pub(crate) grid: usize,
    pub(crate) qkv_bias: bool,
    pub(crate) tied: bool,
    pub(crate) registers: usize,
    pub(crate) drop: usize,
    pub(crate) positions: PositionMode,
    /// LLaVA-NeXT.
    pub(crate) tiles: bool,
}

pub(crate) fn build(shape: Shape) -> VlmConfig {
    VlmConfig {
        picture: Some(PictureConfig {
            vision_config: VisionConfig {
                family: VisionFamily::Clip,
                hidden_size: 16,
                intermediate_size: 24,
                num_hidden_layers: 2,
                num_attention_heads: 2,
                image_size: shape.grid * 4,
                patch_size: 4,
                num_channels: 3,
                layer_norm_eps: 1e-5,
                hidden_act: Activation::QuickGelu,
            },
            projector: ProjectorConfig::Mlp {
                activation: Activation::Gelu,
                bias: true,
            },
            vision_feature_layer: -2,
            vision_feature_select_strategy: VisionSelect::Default,
            image_token_index: VOCAB as u32 - 1,
            image_grid_pinpoints: shape.tiles.then(|| {
                let side = shape.grid * 4;
                vec![[side, 2 * side], [2 * side, 2 * side], [3 * side, side]]
            }),
        }),
        text_config: TextConfig {
            hidden_size: shape.hidden,
            intermediate_size: shape.hidden * 2,
            num_hidden_layers: shape.layers,
            num_attention_heads: shape.heads,
            num_key_value_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            vocab_size: VOCAB,
            rms_norm_eps: 1e-5,
            rope: RopeConfig {
                theta: 10_000.0,
                scaling: None,
            },
            max_position_embeddings: 512,
            qkv_bias: shape.qkv_bias,
            output_bias: false,
            mlp_bias: false,
            tie_word_embeddings: shape.tied,
        },
        visual_token_reduction: Some(ReductionConfig {
            num_registers: shape.registers,
            drop_layer: shape.drop,
            positions: shape.positions,
        }),
    }
}

/// The model of a config with weights that depend on the seed alone.
pub(crate) fn model<B: VictorBackend>(config: &VlmConfig, seed: u64, device: &B::Device) -> Vlm<B> {
    let mut seeded = Seeded(ChaCha8Rng::seed_from_u64(seed));
    Vlm::init(config, device).map(&mut seeded)
}

struct Seeded(ChaCha8Rng);

impl<B: Backend> ModuleMapper<B> for Seeded {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let shape = param.lazy_shape();
        let width = shape.dims::<D>()[D - 1] as f32;
        // Matrices keep the size of what passes through them; norms scatter around one.
        let (centre, spread) = if D == 1 {
            (1.0, 0.5)
        } else {
            (0.0, 3.0_f32.sqrt() / width.sqrt())
        };
        let values: Vec<f32> = (0..shape.num_elements())
            .map(|_| centre + spread * self.0.random_range(-1.0..1.0))
            .collect();
        let id = param.id;
        let device = param.lazy_device();
        param.transform_for_load(
            Tensor::from_data(TensorData::new(values, shape), &device),
            id,
        )
    }
}

fn picture(config: &VlmConfig) -> &PictureConfig {
    config.picture.as_ref().expect("a picture side")
}

/// How `images` pictures are cut, each in its own way; whole for a model without tiles.
pub(crate) fn grids(config: &VlmConfig, images: usize, seed: u64) -> Vec<TileGrid> {
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x7117);
    let picture = picture(config);
    let mut grid = || {
        let Some(pinpoints) = &picture.image_grid_pinpoints else {
            return TileGrid::whole(0, 0);
        };
        // One picture in four has its thumbnail only.
        let side = picture.vision_config.image_size;
        let [height, width] = match random.random_range(0..4) {
            0 => [0, 0],
            _ => pinpoints[random.random_range(0..pinpoints.len())],
        };
        TileGrid {
            rows: height / side,
            columns: width / side,
            height: random.random_range(1..40),
            width: random.random_range(1..40),
        }
    };
    (0..images).map(|_| grid()).collect()
}

/// Visual tokens of a picture.
fn tokens(config: &VlmConfig, grid: &TileGrid) -> usize {
    let picture = picture(config);
    let vision = &picture.vision_config;
    match picture.image_grid_pinpoints {
        Some(_) => grid.visual_tokens(vision.image_size / vision.patch_size),
        None => picture.visual_tokens(),
    }
}

/// Seeded features of views, `[views, patches, vision_hidden]`.
pub(crate) fn features<B: VictorBackend>(
    config: &VlmConfig,
    views: usize,
    seed: u64,
    device: &B::Device,
) -> Tensor<B, 3> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let vision = &picture(config).vision_config;
    let shape = [views, vision.num_patches(), vision.hidden_size];
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| random.random_range(-1.5..1.5))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Text with `images` pictures in it, each at a place of its own.
pub(crate) fn sequence(config: &VlmConfig, gaps: &[usize], seed: u64) -> Sequence {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sequence = Sequence::default();
    let grids = grids(config, gaps.len() - 1, seed);
    for (index, gap) in gaps.iter().enumerate() {
        sequence
            .ids
            .extend((0..*gap).map(|_| random.random_range(0..VOCAB as u32 - 1)));
        if let Some(grid) = grids.get(index) {
            let start = sequence.ids.len();
            let marker = picture(config).image_token_index;
            sequence
                .ids
                .extend(std::iter::repeat_n(marker, tokens(config, grid)));
            sequence.image_spans.push(start..sequence.ids.len());
        }
    }
    sequence
}

/// Prompts of up to two pictures that end in text: how many tokens stand before, between and after.
pub(crate) fn gaps() -> impl Strategy<Value = Vec<usize>> {
    let inner = prop::collection::vec(0_usize..4, 0..=2);
    (inner, 1_usize..6).prop_map(|(mut gaps, last)| {
        gaps.push(last);
        gaps
    })
}

pub(crate) fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor
        .into_data()
        .convert::<f32>()
        .to_vec()
        .expect("floats")
}

/// Relative L2 distance.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum();
    let difference: f64 = squares(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let norm: f64 = squares(&mut expected.iter().copied());
    (difference / norm.max(1e-30)).sqrt()
}
