//! Fills a model from a checkpoint, one tensor at a time.

use crate::checkpoint::TensorView;
use crate::dtype::{aligned, narrowed, tensor_dtype};
use crate::names::{never_used, of_module_path};
use crate::{Checkpoint, WeightDtype, WeightsError};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::{Bytes, DType};
use std::collections::BTreeSet;
use std::path::Path;
use victor_model::{PictureConfig, VictorBackend, Vlm, VlmConfig};

/// How a checkpoint is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Parts that start untrained, by the first word of our names: `multi_modal_projector`,
    /// `visual_registers`. Tensors the files hold for them are not read.
    pub fresh: Vec<String>,
    /// What the large matrices are kept in.
    pub dtype: WeightDtype,
}

/// What loading found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors of the files that no part of the model wants, by our names.
    pub unexpected: Vec<String>,
    /// Tensors left out on purpose: parts LLaVA never computes.
    pub skipped: usize,
    /// Bytes given to the backend as they lie in the files; flex computes on them there.
    pub mapped_bytes: usize,
    /// Bytes that were converted, dequantised or copied.
    pub converted_bytes: usize,
}

/// Loads the model `config` describes from the weights in `dir`.
///
/// # Errors
/// As [`load_from`], or if the folder holds no weights or damaged ones.
pub fn load<B: VictorBackend>(
    dir: &Path,
    config: &VlmConfig,
    device: &B::Device,
    options: &LoadOptions,
) -> Result<(Vlm<B>, LoadReport), WeightsError> {
    load_from(&Checkpoint::open(dir)?, config, device, options)
}

/// Loads the model `config` describes from a checkpoint.
///
/// Files are mapped, and a tensor stored in the type it is kept in is used where it lies; the others
/// are converted one by one.
///
/// # Errors
/// If the backend does not take weights of `options.dtype`, or a tensor is missing, has another shape,
/// or is stored in a format that is not read.
pub fn load_from<B: VictorBackend>(
    checkpoint: &Checkpoint,
    config: &VlmConfig,
    device: &B::Device,
    options: &LoadOptions,
) -> Result<(Vlm<B>, LoadReport), WeightsError> {
    options.dtype.check::<B>(device)?;
    let mut loader = Loader {
        checkpoint,
        options,
        device,
        path: Vec::new(),
        read: BTreeSet::new(),
        report: LoadReport::default(),
        missing: Vec::new(),
        error: None,
    };
    let model = Vlm::<B>::init(config, device).map(&mut loader);
    if let Some(error) = loader.error {
        return Err(error);
    }
    if !loader.missing.is_empty() {
        return Err(WeightsError::Missing {
            path: checkpoint.dir().into(),
            names: loader.missing,
        });
    }
    let mut report = loader.report;
    let tied = config.text_config.tie_word_embeddings;
    let layers = config
        .picture
        .as_ref()
        .map_or(0, PictureConfig::vision_layers);
    let read = loader.read;
    for name in checkpoint.names() {
        let tensor = name.strip_suffix("_scale").unwrap_or(name);
        if read.contains(tensor) {
            continue;
        }
        if never_used(name, layers, tied) || is_fresh(&options.fresh, name) {
            report.skipped += 1;
        } else {
            report.unexpected.push(name.into());
        }
    }
    Ok((model, report))
}

fn is_fresh(fresh: &[String], name: &str) -> bool {
    let part = name.split('.').next().unwrap_or(name);
    fresh.iter().any(|fresh| fresh == part)
}

struct Loader<'a, B: Backend> {
    checkpoint: &'a Checkpoint,
    options: &'a LoadOptions,
    device: &'a B::Device,
    /// Names of the modules around, each with the type it stands in.
    path: Vec<(String, String)>,
    read: BTreeSet<String>,
    report: LoadReport,
    missing: Vec<String>,
    error: Option<WeightsError>,
}

impl<B: VictorBackend> Loader<'_, B> {
    fn read<const D: usize>(
        &mut self,
        name: &str,
        expected: [usize; D],
    ) -> Result<Option<Tensor<B, D>>, WeightsError> {
        let Some(view) = self.checkpoint.get(name) else {
            self.missing.push(name.into());
            return Ok(None);
        };
        view.check_shape(&expected)?;
        // A matrix with a change added has numbers its file's type may not have.
        let changed = !self.checkpoint.is_plain(name);
        let kept = match self.options.dtype {
            WeightDtype::Auto if changed => DType::F32,
            dtype if D == 2 && self.in_matrix() => dtype.kept::<B>(view.format, self.device),
            _ => DType::F32,
        };
        let bytes = self.numbers(name, &view, kept)?;
        self.read.insert(name.into());
        Ok(Some(Tensor::from_data(
            TensorData::from_bytes(bytes, expected, kept),
            (self.device, kept),
        )))
    }

    /// Whether the parameter being read belongs to a linear layer or an embedding table.
    fn in_matrix(&self) -> bool {
        let within = self.path.last().map(|(_, within)| within.as_str());
        matches!(within, Some("Struct:Linear" | "Struct:Embedding"))
    }

    /// The numbers of a tensor as `kept`: where they lie, if they are stored so.
    fn numbers(
        &mut self,
        name: &str,
        view: &TensorView,
        kept: DType,
    ) -> Result<Bytes, WeightsError> {
        if self.checkpoint.is_plain(name)
            && tensor_dtype(view.format) == Some(kept)
            && let Some(bytes) = aligned(view.shared(), kept)
        {
            self.report.mapped_bytes += bytes.len();
            return Ok(bytes);
        }
        let values = self.checkpoint.read_f32(name)?.unwrap_or_default();
        let bytes = narrowed(values, kept).ok_or_else(|| WeightsError::Overflow {
            path: view.path.into(),
            name: view.name.into(),
            dtype: self.options.dtype,
        })?;
        self.report.converted_bytes += bytes.len();
        Ok(bytes)
    }
}

impl<B: VictorBackend> ModuleMapper<B> for Loader<'_, B> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.into(), container_type.into()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let path: Vec<String> = self.path.iter().map(|(name, _)| name.clone()).collect();
        let name = of_module_path(&path);
        if self.error.is_some() || is_fresh(&self.options.fresh, &name) {
            return param;
        }
        match self.read(&name, param.lazy_shape().dims::<D>()) {
            Ok(Some(tensor)) => {
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Ok(None) => param,
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
