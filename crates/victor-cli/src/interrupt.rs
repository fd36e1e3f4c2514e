//! Ctrl-C: while an answer is being given it stops the answer, at any other time the program.

use anyhow::Context;
use signal_hook::{consts::SIGINT, flag};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit status of a program that Ctrl-C ended.
const ENDED: i32 = 130;

/// Whether Ctrl-C was pressed since an answer began, which then is to stop; a second one ends the
/// program.
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes Ctrl-C over from the system.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(true));
        // In this order: the first looks at the flag before the second sets it.
        flag::register_conditional_shutdown(SIGINT, ENDED, Arc::clone(&asked))
            .and_then(|_| flag::register(SIGINT, Arc::clone(&asked)))
            .context("Ctrl-C cannot be taken over")?;
        Ok(Self { asked })
    }

    /// An answer begins.
    pub(crate) fn begin(&self) {
        self.asked.store(false, Ordering::SeqCst);
    }

    /// Whether the answer is to stop.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// The answer is over.
    pub(crate) fn end(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }
}
