//! Options that several subcommands share.

use crate::fetch::FetchBars;
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::num::NonZeroUsize;
use std::path::Path;
use victor::{
    Device, GenerateOptions, ModelFiles, ModelRef, OpenOptions, SamplingOptions, Victor,
    WeightDtype,
};

/// Which model, and what its weights are kept in.
#[derive(Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// What the large matrices are kept in
    #[arg(long, value_enum, default_value_t = DtypeArg::Auto)]
    dtype: DtypeArg,
}

/// Which model.
#[derive(Args)]
pub(crate) struct SourceArgs {
    /// Folder of a checkpoint, GGUF file, or Hub id: owner/name[@revision][:FILE.gguf] [default: the
    /// weights that come with Victor]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// GGUF file of the tower and projector beside a decoder's GGUF file
    #[arg(long, value_name = "FILE", requires = "model")]
    mmproj: Option<String>,
    /// What an adapter or a projector stands on, in place of what it names itself
    #[arg(long, value_name = "MODEL", requires = "model")]
    base: Option<String>,
    /// vicuna_v1, llama3, mistral, chatml or a file of Jinja, in place of the model's own
    #[arg(long, value_name = "NAME")]
    chat_template: Option<String>,
    /// Fetch nothing: use what the Hub's cache holds
    #[arg(long)]
    offline: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeArg {
    /// 16-bit floats where they are stored so and the device multiplies them (flex), else f32
    Auto,
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// 16-bit floats with the exponent of f32
    Bf16,
}

/// Where it runs.
#[derive(Args)]
pub(crate) struct DeviceArgs {
    /// cpu (flex), ndarray, wgpu, vulkan, metal or cuda[:n] [default: the best compiled in]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
}

/// How answers are generated and shown.
#[derive(Args)]
pub(crate) struct AnswerArgs {
    /// At most so many new tokens
    #[arg(long, value_name = "N", default_value = "128")]
    max_new_tokens: NonZeroUsize,
    /// 0 takes the most likely token, higher values vary more
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Choose among the K most likely tokens; 0 allows all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among the most likely tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Makes tokens that were already there less likely; 1 does nothing
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// Seed of the choice; equal seeds give equal answers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Text that ends the answer and is not part of it; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Tell where the time went
    #[arg(long)]
    pub(crate) timings: bool,
}

impl SourceArgs {
    /// Which model.
    pub(crate) fn model(&self) -> anyhow::Result<ModelRef> {
        let model = match &self.model {
            Some(model) => ModelRef::new(model),
            None => victor::default_weights()?.into(),
        };
        Ok(ModelRef {
            mmproj: self.mmproj.clone(),
            base: self.base.clone(),
            chat_template: self.chat_template.clone(),
            offline: self.offline,
            ..model
        })
    }

    /// Finds the model's files, fetching what is named by a Hub id.
    pub(crate) fn files(&self) -> anyhow::Result<(ModelRef, ModelFiles)> {
        let model = self.model()?;
        let files = ModelFiles::open_with(&model, &FetchBars::default())?;
        Ok((model, files))
    }
}

impl ModelArgs {
    /// Which model.
    pub(crate) fn model(&self) -> anyhow::Result<ModelRef> {
        self.source.model()
    }

    /// What the large matrices are kept in.
    pub(crate) fn dtype(&self) -> WeightDtype {
        match self.dtype {
            DtypeArg::Auto => WeightDtype::Auto,
            DtypeArg::F32 => WeightDtype::F32,
            DtypeArg::F16 => WeightDtype::F16,
            DtypeArg::Bf16 => WeightDtype::Bf16,
        }
    }

    /// Opens the checkpoint, and tells of tensors in it that belong to no part.
    pub(crate) fn open(&self, device: &DeviceArgs) -> anyhow::Result<Victor> {
        let options = OpenOptions {
            dtype: self.dtype(),
        };
        let (source, files) = self.source.files()?;
        let model = Victor::from_files(source, files, device.choose()?, &options)?;
        let unused = &model.report().unexpected;
        if let Some(first) = unused.first() {
            let count = unused.len();
            eprintln!("warning: {count} tensors of the checkpoint are not used, {first} first");
        }
        Ok(model)
    }
}

impl DeviceArgs {
    /// The device asked for, or the best there is.
    pub(crate) fn choose(&self) -> anyhow::Result<Device> {
        Ok(self.device.map_or_else(Device::best, Ok)?)
    }
}

impl AnswerArgs {
    /// The same as the engine takes it, checked.
    pub(crate) fn options(&self) -> anyhow::Result<GenerateOptions> {
        let sampling = SamplingOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        sampling.validate()?;
        Ok(GenerateOptions {
            max_new_tokens: self.max_new_tokens.get(),
            sampling,
            stop_strings: self.stop.clone(),
            ..Default::default()
        })
    }
}

/// Refuses a file that cannot be written before hours of work go into it.
pub(crate) fn check_out(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    anyhow::ensure!(
        folder.is_dir(),
        "{}: there is no folder {} to write it to",
        path.display(),
        folder.display()
    );
    anyhow::ensure!(
        !path.is_dir(),
        "{}: is a folder; expected the name of a file",
        path.display()
    );
    path.file_name()
        .map(drop)
        .with_context(|| format!("{}: expected the name of a file", path.display()))
}
