//! Draws what is fetched from the Hub: a bar a file, on standard error.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use victor::{FetchEvent, FetchProgress};

/// Bars of the files on their way.
#[derive(Default)]
pub(crate) struct FetchBars {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

impl FetchBars {
    fn with_bar(&self, file: &str, change: impl FnOnce(&ProgressBar)) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(file.into()).or_insert_with(|| {
            let bar = ProgressBar::new(0).with_message(file.to_string());
            self.all.add(bar.with_style(style()))
        });
        change(bar);
    }

    fn say(&self, line: String) {
        // Without a terminal nothing is drawn, and the line would be lost.
        if self.all.is_hidden() {
            eprintln!("{line}");
        } else {
            let _ = self.all.println(line);
        }
    }
}

impl FetchProgress for FetchBars {
    fn event(&self, event: FetchEvent<'_>) {
        match event {
            FetchEvent::Planned { files, bytes } => {
                let bytes = indicatif::DecimalBytes(bytes);
                self.say(format!("fetching {files} files, {bytes}"));
            }
            FetchEvent::Waiting { file } => {
                self.say(format!("{file}: another process is fetching it"));
            }
            FetchEvent::Started { file, size, done } => self.with_bar(file, |bar| {
                bar.set_length(size);
                bar.set_position(done);
                bar.reset_eta();
            }),
            FetchEvent::Advanced { file, done } => {
                self.with_bar(file, |bar| bar.set_position(done));
            }
            FetchEvent::Retrying { file, wait, error } => {
                let wait = wait.as_secs_f64();
                self.say(format!("{file}: {error}; trying again in {wait:.1} s"));
            }
            FetchEvent::Finished { file } => self.with_bar(file, ProgressBar::finish_and_clear),
            FetchEvent::Outdated { error } => {
                self.say(format!("warning: {error}; the last snapshot is used"));
            }
            _ => {}
        }
    }
}

fn style() -> ProgressStyle {
    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar())
}
