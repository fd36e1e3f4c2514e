//! Progress bars on standard error, or none.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// As bars on standard error, where that is a terminal.
    #[default]
    Bars,
    /// Nowhere.
    Hidden,
}

impl Progress {
    /// A bar over `length` steps of something called `what`.
    pub(crate) fn bar(self, length: usize, what: &'static str) -> ProgressBar {
        let target = match self {
            Progress::Bars => ProgressDrawTarget::stderr(),
            Progress::Hidden => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(length as u64), target).with_prefix(what);
        let template = "{prefix} {bar:30} {pos}/{len} {msg} [{elapsed_precise} < {eta_precise}]";
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}
