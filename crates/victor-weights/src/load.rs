//! Fills a model from a checkpoint, one tensor at a time.

use crate::names::{never_used, of_module_path};
use crate::{Checkpoint, WeightsError};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use victor_model::{PictureConfig, VictorBackend, Vlm, VlmConfig};

/// How a checkpoint is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Parts that start untrained, by the first word of our names: `multi_modal_projector`,
    /// `visual_registers`. Tensors the files hold for them are not read.
    pub fresh: Vec<String>,
}

/// What loading found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors of the files that no part of the model wants, by our names.
    pub unexpected: Vec<String>,
    /// Tensors left out on purpose: parts LLaVA never computes.
    pub skipped: usize,
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
/// Files are mapped and converted tensor by tensor: the peak is the model and its largest tensor.
///
/// # Errors
/// If a tensor is missing, has another shape, or is stored in a format that is not read.
pub fn load_from<B: VictorBackend>(
    checkpoint: &Checkpoint,
    config: &VlmConfig,
    device: &B::Device,
    options: &LoadOptions,
) -> Result<(Vlm<B>, LoadReport), WeightsError> {
    let mut loader = Loader {
        checkpoint,
        fresh: &options.fresh,
        device,
        path: Vec::new(),
        read: BTreeSet::new(),
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
    let report = report(checkpoint, &loader.read, config, options);
    Ok((model, report))
}

fn report(
    checkpoint: &Checkpoint,
    read: &BTreeSet<String>,
    config: &VlmConfig,
    options: &LoadOptions,
) -> LoadReport {
    let tied = config.text_config.tie_word_embeddings;
    let layers = config
        .picture
        .as_ref()
        .map_or(0, PictureConfig::vision_layers);
    let mut report = LoadReport::default();
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
    report
}

fn is_fresh(fresh: &[String], name: &str) -> bool {
    let part = name.split('.').next().unwrap_or(name);
    fresh.iter().any(|fresh| fresh == part)
}

struct Loader<'a, B: Backend> {
    checkpoint: &'a Checkpoint,
    fresh: &'a [String],
    device: &'a B::Device,
    path: Vec<String>,
    read: BTreeSet<String>,
    missing: Vec<String>,
    error: Option<WeightsError>,
}

impl<B: Backend> Loader<'_, B> {
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
        let values = self.checkpoint.read_f32(name)?.unwrap_or_default();
        self.read.insert(name.into());
        Ok(Some(Tensor::from_data(
            TensorData::new(values, expected),
            self.device,
        )))
    }
}

impl<B: Backend> ModuleMapper<B> for Loader<'_, B> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let name = of_module_path(&self.path);
        if self.error.is_some() || is_fresh(self.fresh, &name) {
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
