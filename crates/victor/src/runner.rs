//! The engine a user holds: a checkpoint on a device chosen at run time.

use crate::completion::{Completion, Timings, Token};
use crate::engine::{Engine, OpenOptions};
use crate::generate::{Batch, Decoding};
use crate::{
    Chat, ChatOptions, GenerateOptions, Info, ModelFiles, ModelRef, Request, Trace, VictorError,
};
use victor_backend::{Device, DeviceTask, VictorBackend};
use victor_model::VlmConfig;
use victor_weights::LoadReport;

/// A vision-language model, ready to answer.
pub struct Victor {
    engine: Box<dyn AnyEngine>,
    source: ModelRef,
    device: Device,
}

impl Victor {
    /// Opens a model on `device`: a folder of any layout that is read.
    ///
    /// # Errors
    /// If the device is not compiled in or the model is not usable.
    pub fn from_pretrained(
        source: impl Into<ModelRef>,
        device: Device,
    ) -> Result<Self, VictorError> {
        Self::open(source, device, &OpenOptions::default())
    }

    /// Opens a model on `device` as `options` say.
    ///
    /// # Errors
    /// If the device is not compiled in, the model is not usable, or the device does not take weights
    /// of `options.dtype`.
    pub fn open(
        source: impl Into<ModelRef>,
        device: Device,
        options: &OpenOptions,
    ) -> Result<Self, VictorError> {
        let source = source.into();
        // Read before the device is started: a wrong folder should not cost a driver's start.
        let files = ModelFiles::open(&source)?;
        Self::from_files(source, files, device, options)
    }

    /// Loads a model whose files have been opened as `source`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_files(
        source: ModelRef,
        files: ModelFiles,
        device: Device,
        options: &OpenOptions,
    ) -> Result<Self, VictorError> {
        let options = *options;
        let engine = device.run(Load { files, options })??;
        Ok(Self {
            engine,
            source,
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

    /// Begins a conversation.
    ///
    /// # Errors
    /// If an option is out of its range, or the chat template refuses the system message.
    pub fn chat(&self, options: ChatOptions) -> Result<Chat<'_>, VictorError> {
        self.engine.chat(options)
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

    /// What it was opened as.
    pub fn source(&self) -> &ModelRef {
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
    fn chat(&self, options: ChatOptions) -> Result<Chat<'_>, VictorError>;
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

    fn chat(&self, options: ChatOptions) -> Result<Chat<'_>, VictorError> {
        Engine::chat(self, options)
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

struct Load {
    files: ModelFiles,
    options: OpenOptions,
}

impl DeviceTask for Load {
    type Output = Result<Box<dyn AnyEngine>, VictorError>;

    fn run<B: VictorBackend>(self, device: B::Device) -> Self::Output {
        let engine = Engine::<B>::load(self.files, &device, &self.options)?;
        Ok(Box::new(engine))
    }
}
