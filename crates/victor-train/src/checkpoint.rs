//! The state of a run on disk: trained parts, optimisers and the step, replaced all at once.
//!
//! The order of batches and every random choice follow from the seed and the step, so nothing else
//! is needed to go on bit for bit.

use crate::error::file_error;
use crate::optimizer::{Model, Optimizers};
use crate::{Part, TrainConfig, TrainError};
use burn::backend::Autodiff;
use burn::module::Module;
use burn::optim::Optimizer;
use burn::record::{BinFileRecorder, FullPrecisionSettings, Record, Recorder};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use victor_model::VictorBackend;

/// Settings a resumed run may change: they do not alter what a step computes.
const FREE: [&str; 7] = [
    "checkpoint_every",
    "evaluate_every",
    "feature_cache",
    "output",
    "resume",
    "validation",
    "validation_records",
];

#[derive(Debug, Serialize, Deserialize)]
struct State {
    step: usize,
    /// Of the corpus, so that changed data is noticed.
    samples: usize,
    recipe: TrainConfig,
}

/// Where a run's state is kept.
pub(crate) struct CheckpointStore<'a> {
    pub(crate) output: &'a Path,
    pub(crate) config: &'a TrainConfig,
    pub(crate) samples: usize,
}

impl CheckpointStore<'_> {
    /// Writes the state after `step` steps. A kill at any moment leaves this state or the last.
    pub(crate) fn save<B: VictorBackend>(
        &self,
        model: &Model<B>,
        optimizers: &Optimizers<B>,
        step: usize,
    ) -> Result<(), TrainError> {
        let [current, new, old] = self.places();
        remove(&new)?;
        fs::create_dir_all(&new).map_err(file_error(&new, "make the checkpoint"))?;
        for part in self.trained() {
            let path = new.join(part.to_string());
            let picture = model.picture.as_ref();
            match part {
                Part::VisionTower => picture.map_or(Ok(()), |picture| {
                    write::<B, _>(picture.vision_tower.clone().into_record(), path)
                }),
                Part::Projector => picture.map_or(Ok(()), |picture| {
                    write::<B, _>(picture.multi_modal_projector.clone().into_record(), path)
                }),
                Part::Registers => {
                    write::<B, _>(model.visual_registers.clone().into_record(), path)
                }
                Part::Decoder => write::<B, _>(model.language_model.clone().into_record(), path),
            }?;
        }
        for (number, adam) in optimizers.adam.iter().enumerate() {
            write::<B, _>(adam.to_record(), new.join(format!("adam-{number}")))?;
        }
        let state = State {
            step,
            samples: self.samples,
            recipe: self.config.clone(),
        };
        let path = new.join("state.json");
        let json = serde_json::to_vec_pretty(&state).map_err(json_error(&path))?;
        fs::write(&path, json).map_err(file_error(&path, "write"))?;
        sync(&new)?;

        if current.exists() {
            remove(&old)?;
            fs::rename(&current, &old).map_err(file_error(&current, "replace the checkpoint"))?;
        }
        fs::rename(&new, &current).map_err(file_error(&new, "replace the checkpoint"))?;
        remove(&old)
    }

    /// Whether the output directory holds a state to go on from.
    pub(crate) fn exists(&self) -> bool {
        let [current, _, old] = self.places();
        current.is_dir() || old.is_dir()
    }

    /// Restores the last state; `None` if there is none.
    pub(crate) fn load<B: VictorBackend>(
        &self,
        model: Model<B>,
        optimizers: &mut Optimizers<B>,
    ) -> Result<(Model<B>, usize), TrainError> {
        let [current, _, old] = self.places();
        // A kill between the two renames leaves the last state under its old name.
        let Some(from) = [current, old].into_iter().find(|place| place.is_dir()) else {
            return Ok((model, 0));
        };
        let step = self.read_state(&from)?;
        let device = &model.device();
        let mut model = model;
        for part in self.trained() {
            let path = from.join(part.to_string());
            match part {
                Part::VisionTower => {
                    if let Some(picture) = &mut model.picture {
                        let record = read::<B, _>(path, device)?;
                        picture.vision_tower = picture.vision_tower.clone().load_record(record);
                    }
                }
                Part::Projector => {
                    if let Some(picture) = &mut model.picture {
                        let record = read::<B, _>(path, device)?;
                        let projector = picture.multi_modal_projector.clone();
                        picture.multi_modal_projector = projector.load_record(record);
                    }
                }
                Part::Registers => {
                    let record = read::<B, _>(path, device)?;
                    model.visual_registers = model.visual_registers.load_record(record);
                }
                Part::Decoder => {
                    let record = read::<B, _>(path, device)?;
                    model.language_model = model.language_model.load_record(record);
                }
            }
        }
        *optimizers = Optimizers::new(self.config, &model);
        for (number, adam) in optimizers.adam.iter_mut().enumerate() {
            let record = read::<B, _>(from.join(format!("adam-{number}")), device)?;
            *adam = adam.clone().load_record(record);
        }
        Ok((crate::parts::track(model, &self.config.train), step))
    }

    /// The step of a state, after checking that it is one of this run.
    fn read_state(&self, from: &Path) -> Result<usize, TrainError> {
        let path = from.join("state.json");
        let text = fs::read_to_string(&path).map_err(file_error(&path, "read"))?;
        let state: State = serde_json::from_str(&text).map_err(json_error(&path))?;
        let differs = |field: &str| TrainError::OtherRun {
            path: from.to_owned(),
            field: field.to_owned(),
        };
        if state.samples != self.samples {
            return Err(differs("data"));
        }
        let value = |config: &TrainConfig| serde_json::to_value(config).map_err(json_error(&path));
        let (then, now) = (value(&state.recipe)?, value(self.config)?);
        for (field, now) in now.as_object().into_iter().flatten() {
            if !FREE.contains(&field.as_str()) && then.get(field) != Some(now) {
                return Err(differs(field));
            }
        }
        Ok(state.step)
    }

    fn trained(&self) -> impl Iterator<Item = Part> {
        let trains = |part: &Part| self.config.trains(*part);
        Part::ALL.into_iter().filter(trains)
    }

    fn places(&self) -> [PathBuf; 3] {
        ["checkpoint", "checkpoint.new", "checkpoint.old"].map(|name| self.output.join(name))
    }
}

type File = BinFileRecorder<FullPrecisionSettings>;

fn write<B: VictorBackend, R: Record<Autodiff<B>>>(
    record: R,
    path: PathBuf,
) -> Result<(), TrainError> {
    let recorder = File::new();
    Recorder::<Autodiff<B>>::record(&recorder, record, path.clone())
        .map_err(|source| TrainError::Record { path, source })
}

fn read<B: VictorBackend, R: Record<Autodiff<B>>>(
    path: PathBuf,
    device: &B::Device,
) -> Result<R, TrainError> {
    let recorder = File::new();
    Recorder::<Autodiff<B>>::load(&recorder, path.clone(), device)
        .map_err(|source| TrainError::Record { path, source })
}

/// Puts all files of a directory on the disk before it is renamed.
fn sync(directory: &Path) -> Result<(), TrainError> {
    let sync_all = || {
        for entry in fs::read_dir(directory)? {
            fs::OpenOptions::new()
                .append(true)
                .open(entry?.path())?
                .sync_all()?;
        }
        Ok(())
    };
    sync_all().map_err(file_error(directory, "write the checkpoint to the disk"))
}

fn remove(directory: &Path) -> Result<(), TrainError> {
    if !directory.exists() {
        return Ok(());
    }
    fs::remove_dir_all(directory).map_err(file_error(directory, "remove the old checkpoint"))
}

fn json_error(path: &Path) -> impl FnOnce(serde_json::Error) -> TrainError {
    let path = path.to_owned();
    move |source| TrainError::Json { path, source }
}
