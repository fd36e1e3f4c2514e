//! The engine a user holds: a checkpoint on a device chosen at run time.

use crate::completion::{Completion, Timings, Token};
use crate::engine::{Engine, OpenOptions, read_config};
use crate::generate::{Batch, Decoding};
use crate::{GenerateOptions, Info, Request, Trace, VictorError};
use std::path::{Path, PathBuf};
use victor_backend::{Device, DeviceTask, VictorBackend};
use victor_model::VlmConfig;
use victor_weights::LoadReport;

/// A vision-language model, ready to answer.
pub struct Victor {
    engine: Box<dyn AnyEngine>,
    source: PathBuf,
    device: Device,
}

impl Victor {
    /// Opens the checkpoint in the folder `source` on `device`.
    ///
    /// # Errors
    /// If the device is not compiled in or the checkpoint is not usable.
    pub fn from_pretrained(source: impl AsRef<Path>, device: Device) -> Result<Self, VictorError> {
        Self::open(source, device, &OpenOptions::default())
    }

    /// Opens the checkpoint in the folder `source` on `device` as `options` say.
    ///
    /// # Errors
    /// If the device is not compiled in, the checkpoint is not usable, or the device does not take
    /// weights of `options.dtype`.
    pub fn open(
        source: impl AsRef<Path>,
        device: Device,
        options: &OpenOptions,
    ) -> Result<Self, VictorError> {
        let source = source.as_ref();
        // Read before the device is started: a wrong folder should not cost a driver's start.
        read_config(source)?;
        let engine = device.run(Load { source, options })??;
        Ok(Self {
            engine,
            source: source.into(),
            device,
        })
    }

    /// Answers one request, token by token.
    ///
    /// # Errors
    /// If the request does not fit the model. Errors of later steps come out of the iterator.
    pub fn generate(
        &self,
        request: &Request,
        options: &GenerateOptions,
    ) -> Result<Generation<'_>, VictorError> {
        let decoding = self.engine.start(std::slice::from_ref(request), options)?;
        Ok(Generation {
            decoding,
            failed: false,
        })
    }

    /// Answers requests together, each as it would be answered alone.
    ///
    /// # Errors
    /// If a request does not fit the model.
    pub fn generate_batch(
        &self,
        requests: &[Request],
        options: &GenerateOptions,
    ) -> Result<(Vec<Completion>, Timings), VictorError> {
        if requests.is_empty() {
            return Ok((Vec::new(), Timings::default()));
        }
        let mut decoding = self.engine.start(requests, options)?;
        while decoding.step()?.is_some() {}
        Ok((decoding.completions(), decoding.timings()))
    }

    /// Every stage of one request as numbers, for comparing a conversion with its origin.
    ///
    /// # Errors
    /// If the request does not fit the model.
    pub fn trace(&self, request: &Request, max_new_tokens: usize) -> Result<Trace, VictorError> {
        self.engine.trace(request, max_new_tokens)
    }

    /// Parameters, memory and cost.
    pub fn info(&self) -> Info {
        Info::new(self.config())
    }

    /// What the model is made of.
    pub fn config(&self) -> &VlmConfig {
        self.engine.config()
    }

    /// What loading found.
    pub fn report(&self) -> &LoadReport {
        self.engine.report()
    }

    /// The folder it was opened from.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The device it runs on.
    pub fn device(&self) -> Device {
        self.device
    }
}

impl std::fmt::Debug for Victor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Victor")
            .field("source", &self.source)
            .field("device", &self.device)
            .finish()
    }
}

/// An answer in the making: an iterator of tokens.
pub struct Generation<'a> {
    decoding: Box<dyn Decoding + 'a>,
    failed: bool,
}

impl Generation<'_> {
    /// The answer so far.
    pub fn completion(&self) -> Completion {
        self.decoding.completions().swap_remove(0)
    }

    /// Where the time went so far.
    pub fn timings(&self) -> Timings {
        self.decoding.timings()
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Token, VictorError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.decoding.step() {
            Ok(tokens) => tokens?.swap_remove(0).map(Ok),
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// An [`Engine`] whose backend was chosen at run time.
trait AnyEngine: Send {
    fn start<'a>(
        &'a self,
        requests: &[Request],
        options: &GenerateOptions,
    ) -> Result<Box<dyn Decoding + 'a>, VictorError>;
    fn trace(&self, request: &Request, max_new_tokens: usize) -> Result<Trace, VictorError>;
    fn config(&self) -> &VlmConfig;
    fn report(&self) -> &LoadReport;
}

impl<B: VictorBackend> AnyEngine for Engine<B> {
    fn start<'a>(
        &'a self,
        requests: &[Request],
        options: &GenerateOptions,
    ) -> Result<Box<dyn Decoding + 'a>, VictorError> {
        Ok(Box::new(Batch::start(self, requests, options)?))
    }

    fn trace(&self, request: &Request, max_new_tokens: usize) -> Result<Trace, VictorError> {
        Engine::trace(self, request, max_new_tokens)
    }

    fn config(&self) -> &VlmConfig {
        self.model.config()
    }

    fn report(&self) -> &LoadReport {
        &self.report
    }
}

struct Load<'a> {
    source: &'a Path,
    options: &'a OpenOptions,
}

impl DeviceTask for Load<'_> {
    type Output = Result<Box<dyn AnyEngine>, VictorError>;

    fn run<B: VictorBackend>(self, device: B::Device) -> Self::Output {
        Ok(Box::new(Engine::<B>::load(
            self.source,
            &device,
            self.options,
        )?))
    }
}
