//! Writes an opened checkpoint in our layout, tensor by tensor, without building the model.

use crate::names::{hub, of_module_path};
use crate::replace::Replacement;
use crate::save::{copy_companions, stored_shape, tower_family, write_config};
use crate::write::{Outgoing, write_tensors};
use crate::{Layout, SaveOptions, Source, WeightsError};
use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;
use std::path::{Path, PathBuf};
use victor_model::{VictorBackend, Vlm, VlmConfig};

/// Our name of the registers.
const REGISTERS: &str = "visual_registers";

/// Registers given to a checkpoint that has none, or in place of those it has.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRegisters {
    /// `[num_registers, hidden]`, row by row.
    pub values: Vec<f32>,
}

/// Writes `source` to `out` with the registers `config` calls for.
///
/// `config` is the source's, or that with another reduction; `registers` replaces the checkpoint's.
/// `companions` is told the folder before it is put in its place, to write files about text and
/// pictures; what it does not write is copied from a source that has it in our form. `progress` is told of bytes written and bytes in all. `B` computes nothing.
///
/// # Errors
/// If a tensor is missing or has another shape, or a file cannot be read or written; then `out` is as
/// it was.
pub fn convert<B: VictorBackend, E: From<WeightsError>>(
    source: &Source,
    config: &VlmConfig,
    registers: Option<&NewRegisters>,
    out: &Path,
    options: &SaveOptions,
    companions: impl FnOnce(&Path) -> Result<(), E>,
    progress: &dyn Fn(u64, u64),
) -> Result<(), E> {
    let mut shapes = Shapes::default();
    Vlm::<B>::init(config, &Default::default()).visit(&mut shapes);
    let checkpoint = &source.checkpoint;
    let mut missing = Vec::new();
    for (name, shape) in &shapes.found {
        if name == REGISTERS && registers.is_some() {
            continue;
        }
        match checkpoint.get(name) {
            Some(view) => view.check_shape(shape)?,
            None => missing.push(name.clone()),
        }
    }
    if !missing.is_empty() {
        let path = checkpoint.dir().into();
        return Err(WeightsError::Missing {
            path,
            names: missing,
        }
        .into());
    }

    let inputs = source.companions.iter().map(PathBuf::as_path);
    for input in inputs.chain([checkpoint.dir()]) {
        if let (Ok(input), Ok(out)) = (input.canonicalize(), out.canonicalize())
            && input.starts_with(&out)
        {
            return Err(WeightsError::OutIsSource { path: out }.into());
        }
    }
    let replacement = Replacement::of(out)?;
    companions(replacement.path())?;
    if source.layout == Layout::Hub {
        for folder in &source.companions {
            copy_companions(folder, replacement.path())?;
        }
    }
    let pads = source.layout == Layout::Hub && source.pads;
    write_config(config, pads, replacement.path())?;
    let family = tower_family(config);
    let tensors: Vec<Outgoing> = shapes
        .found
        .into_iter()
        .map(|(ours, shape)| {
            let name = hub(&ours, family);
            let read = move || match registers {
                Some(registers) if ours == REGISTERS => Ok(registers.values.clone()),
                _ => Ok(checkpoint.read_f32(&ours)?.unwrap_or_default()),
            };
            Outgoing {
                shape: stored_shape(&name, &shape),
                name,
                read: Box::new(read),
            }
        })
        .collect();
    write_tensors(
        &tensors,
        options.storage,
        options.max_shard_bytes,
        replacement.path(),
        progress,
    )?;
    Ok(replacement.finish()?)
}

/// The names and shapes of a model's parameters.
#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    found: Vec<(String, Vec<usize>)>,
}

impl<B: Backend> ModuleVisitor<B> for Shapes {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let shape = param.lazy_shape().dims::<D>().to_vec();
        self.found.push((of_module_path(&self.path), shape));
    }
}
