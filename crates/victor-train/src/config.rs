//! What a run trains, on what, and how: a TOML file with a documented default for every setting.

use crate::{Part, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A training recipe.
///
/// A file may say `preset = "stage1"` and state only what differs. Paths are relative to the current
/// directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The checkpoint to start from. No default.
    pub model: PathBuf,
    /// Parts that start untrained, whether or not the checkpoint has them. Default: none.
    pub fresh: Vec<Part>,
    /// Where checkpoint, metrics and the trained model go. No default.
    pub output: PathBuf,
    /// What is trained on. No default.
    pub data: Vec<DataSource>,
    /// What the validation loss is taken on. Default: none.
    pub validation: Vec<DataSource>,
    /// The most validation samples used. Default: 64.
    pub validation_records: usize,
    /// Which parts train. Default: the projector and the registers.
    pub train: Vec<Part>,
    /// Samples in one forward pass. Default: 16.
    pub batch_size: usize,
    /// Forward passes in one optimiser step. Default: 1.
    pub gradient_accumulation: usize,
    /// The highest learning rate of every part without one of its own. Default: 1e-3.
    pub learning_rate: f64,
    /// The highest learning rate of single parts. Default: none.
    pub learning_rates: BTreeMap<Part, f64>,
    /// The highest learning rate of the decoder's layers before the drop, which sum up the pictures, in
    /// place of the decoder's. Default: none.
    pub before_drop_learning_rate: Option<f64>,
    /// Passes over the data. Default: 1.
    pub epochs: usize,
    /// Optimiser steps, in place of `epochs`. Default: none.
    pub max_steps: Option<usize>,
    /// The share of all steps in which the learning rate rises. Default: 0.03.
    pub warmup_ratio: f64,
    /// Decay of weights, not of biases, norms or other vectors. Default: 0.
    pub weight_decay: f64,
    /// AdamW's first decay rate. Default: 0.9.
    pub adam_beta1: f64,
    /// AdamW's second decay rate. Default: 0.999.
    pub adam_beta2: f64,
    /// AdamW's epsilon. Default: 1e-8.
    pub adam_epsilon: f64,
    /// Gradients are scaled down to this norm over all trained parameters; 0 leaves them. Default: 1.
    pub max_grad_norm: f64,
    /// Decides the order of samples, fresh parts and every random choice. Default: 0.
    pub seed: u64,
    /// The most rows of a sample, visual tokens and registers included. Default: 2048.
    pub max_length: usize,
    /// Steps between checkpoints; 0 writes none. Default: 500.
    pub checkpoint_every: usize,
    /// Steps between validations; 0 validates only at the end. Default: 500.
    pub evaluate_every: usize,
    /// Where a frozen tower's features are kept; without it they are computed anew. Default: none.
    pub feature_cache: Option<PathBuf>,
    /// A built-in chat template in place of the checkpoint's. Default: none.
    pub chat_template: Option<String>,
    /// Whether unusable records are counted and left out instead of ending the run. Default: false.
    pub skip_bad: bool,
    /// Probability spread over the whole vocabulary in the target, 0 .. 1. Default: 0.
    pub label_smoothing: f64,
    /// The share of visual tokens whose features become zero, 0 .. 1. Default: 0.
    pub feature_dropout: f64,
    /// Deviation of noise added to features, in deviations of the batch's features. Default: 0.
    pub feature_noise: f64,
    /// How much of the difference between two random pictures that share their first answer is added to
    /// the features of each picture; needs `feature_cache`. Default: 0.
    pub look_shift: f64,
    /// How many of a picture's visual tokens a step sees, drawn anew each time (the first is always
    /// there) and at the positions they have among all; needs `feature_cache`. Default: all.
    pub visual_sample: Option<usize>,
    /// Whether a fresh projector's first layer starts as the discriminants of the pictures' mean features,
    /// grouped by their first answer; needs `feature_cache` and `projector` in `fresh`. Default: false.
    pub discriminant_projector: bool,
    /// Whether to go on from `output/checkpoint` if there is one. Default: false.
    pub resume: bool,
}

/// A file of conversation records and the directory of its pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// LLaVA's JSON.
    pub json: PathBuf,
    /// What the records' picture paths are relative to. Default: the directory of `json`.
    #[serde(default)]
    pub images: Option<PathBuf>,
    /// How often a sample comes up in an epoch; a fraction takes that share, chosen by the seed. Default: 1.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            fresh: Vec::new(),
            output: PathBuf::new(),
            data: Vec::new(),
            validation: Vec::new(),
            validation_records: 64,
            train: vec![Part::Projector, Part::Registers],
            batch_size: 16,
            gradient_accumulation: 1,
            learning_rate: 1e-3,
            learning_rates: BTreeMap::new(),
            before_drop_learning_rate: None,
            epochs: 1,
            max_steps: None,
            warmup_ratio: 0.03,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            seed: 0,
            max_length: 2048,
            checkpoint_every: 500,
            evaluate_every: 500,
            feature_cache: None,
            chat_template: None,
            skip_bad: false,
            label_smoothing: 0.0,
            feature_dropout: 0.0,
            feature_noise: 0.0,
            look_shift: 0.0,
            visual_sample: None,
            discriminant_projector: false,
            resume: false,
        }
    }
}

impl TrainConfig {
    /// The paper's two stages, `stage1` (alignment) and `stage2` (instruction tuning); model, data
    /// and output are left to fill in.
    ///
    /// # Errors
    /// If there is no preset of that name.
    pub fn preset(name: &str) -> Result<Self, TrainError> {
        let stage1 = Self {
            batch_size: 16,
            gradient_accumulation: 16,
            learning_rate: 1e-3,
            fresh: vec![Part::Projector, Part::Registers],
            ..Self::default()
        };
        match name {
            "stage1" => Ok(stage1),
            "stage2" => Ok(Self {
                train: vec![Part::Projector, Part::Registers, Part::Decoder],
                fresh: Vec::new(),
                gradient_accumulation: 8,
                learning_rate: 2e-5,
                ..stage1
            }),
            _ => Err(TrainError::UnknownPreset { name: name.into() }),
        }
    }

    /// Reads a recipe.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML or has an unknown setting. Values are checked by
    /// [`validate`](Self::validate).
    pub fn from_file(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path)
            .map_err(crate::error::file_error(path, "read the recipe"))?;
        let parse = |source| TrainError::ParseConfig {
            path: path.to_owned(),
            source,
        };
        let mut table: toml::Table = toml::from_str(&text).map_err(parse)?;
        let Some(name) = table.remove("preset") else {
            // From the text and not the table, so that an error shows its line.
            return toml::from_str(&text).map_err(parse);
        };
        let preset = Self::preset(name.as_str().unwrap_or_default())?;
        let mut merged = toml::Table::try_from(preset).expect("a preset is plain data");
        merged.extend(table);
        merged.try_into().map_err(parse)
    }

    /// The highest learning rate of a part.
    pub fn learning_rate_of(&self, part: Part) -> f64 {
        *self
            .learning_rates
            .get(&part)
            .unwrap_or(&self.learning_rate)
    }

    /// Whether a part trains.
    pub fn trains(&self, part: Part) -> bool {
        self.train.contains(&part)
    }

    /// Checks every setting before any work is done.
    ///
    /// # Errors
    /// The first setting that has no usable value, by name.
    pub fn validate(&self) -> Result<(), TrainError> {
        let check = |fine: bool, field, found: String, expected| {
            let problem = TrainError::Field {
                field,
                found,
                expected,
            };
            if fine { Ok(()) } else { Err(problem) }
        };
        let directory = |field, path: &Path, expected| {
            check(
                path.is_dir(),
                field,
                format!("{:?}", path.display().to_string()),
                expected,
            )
        };
        let positive =
            |field, value: usize| check(value > 0, field, value.to_string(), "at least 1");
        let within = |field, value: f64, fine: bool, expected| {
            check(
                fine && value.is_finite(),
                field,
                value.to_string(),
                expected,
            )
        };

        directory("model", &self.model, "the directory of a checkpoint")?;
        let named = !self.output.as_os_str().is_empty();
        check(named, "output", "empty".into(), "a directory to write to")?;
        check(
            !self.data.is_empty(),
            "data",
            "empty".into(),
            "at least one `[[data]]` with `json`",
        )?;
        for (field, sources) in [("data", &self.data), ("validation", &self.validation)] {
            for source in sources {
                let json = format!("{:?}", source.json.display().to_string());
                check(
                    source.json.is_file(),
                    field,
                    json,
                    "files of records as `json`",
                )?;
                within(
                    field,
                    source.weight,
                    source.weight > 0.0,
                    "a `weight` above 0",
                )?;
                if let Some(images) = &source.images {
                    directory(field, images, "directories of pictures as `images`")?;
                }
            }
        }
        check(
            !self.train.is_empty(),
            "train",
            "empty".into(),
            "at least one part",
        )?;
        positive("batch_size", self.batch_size)?;
        positive("gradient_accumulation", self.gradient_accumulation)?;
        positive("epochs", self.epochs)?;
        positive("max_steps", self.max_steps.unwrap_or(1))?;
        positive("max_length", self.max_length)?;
        positive("visual_sample", self.visual_sample.unwrap_or(1))?;
        check(
            self.look_shift == 0.0 || self.feature_cache.is_some(),
            "look_shift",
            self.look_shift.to_string(),
            "0 without a `feature_cache`",
        )?;
        check(
            self.visual_sample.is_none() || self.feature_cache.is_some(),
            "visual_sample",
            "set".into(),
            "nothing without a `feature_cache`",
        )?;
        let rates = self.learning_rates.values().chain([&self.learning_rate]);
        let rates = rates.chain(&self.before_drop_learning_rate);
        for rate in rates {
            within("learning_rate", *rate, *rate > 0.0, "a number above 0")?;
        }
        for (field, value) in [
            ("warmup_ratio", self.warmup_ratio),
            ("label_smoothing", self.label_smoothing),
            ("feature_dropout", self.feature_dropout),
            ("adam_beta1", self.adam_beta1),
            ("adam_beta2", self.adam_beta2),
        ] {
            within(
                field,
                value,
                (0.0..1.0).contains(&value),
                "at least 0 and below 1",
            )?;
        }
        for (field, value) in [
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
            ("feature_noise", self.feature_noise),
            ("look_shift", self.look_shift),
        ] {
            within(field, value, value >= 0.0, "at least 0")?;
        }
        within(
            "adam_epsilon",
            self.adam_epsilon,
            self.adam_epsilon > 0.0,
            "a number above 0",
        )?;
        check(
            self.feature_cache.is_none() || !self.trains(Part::VisionTower),
            "feature_cache",
            "set".into(),
            "nothing, since a tower in `train` changes its features",
        )?;
        check(
            !self.discriminant_projector
                || (self.feature_cache.is_some() && self.fresh.contains(&Part::Projector)),
            "discriminant_projector",
            "true".into(),
            "false, unless `fresh` names the projector and there is a `feature_cache`",
        )
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
