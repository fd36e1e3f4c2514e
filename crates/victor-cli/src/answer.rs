//! Asking one question about one picture or many, and showing the answers.

use crate::args::{AnswerArgs, DeviceArgs, ModelArgs};
use crate::output::Output;
use crate::pictures;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use victor::{Completion, FinishReason, GenerateOptions, Request, RgbImage, Timings, Victor};

/// What is asked about which pictures.
pub(crate) struct Question<'a> {
    pub(crate) images: &'a [PathBuf],
    pub(crate) text: &'a str,
    pub(crate) batch_size: usize,
}

/// An answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    image: &'a Path,
    text: &'a str,
    ids: &'a [u32],
    finish_reason: FinishReason,
    prompt_tokens: usize,
    new_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<BatchTimings>,
}

/// Times are measured by batch, so each answer of a batch tells the same.
#[derive(Serialize)]
struct BatchTimings {
    batch_size: usize,
    #[serde(flatten)]
    timings: Timings,
}

impl Question<'_> {
    /// Answers: one picture's token by token, those of many as `path: answer`.
    pub(crate) fn answer(
        &self,
        args: &AnswerArgs,
        model: &ModelArgs,
        device: &DeviceArgs,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let options = args.options()?;
        let (first, rest) = self.images.split_at(self.images.len().min(self.batch_size));
        let first = pictures::decode(first)?;
        pictures::check(rest)?;

        let clock = Instant::now();
        let model = model.open(device)?;
        if args.timings {
            let (device, seconds) = (model.device(), clock.elapsed().as_secs_f64());
            let report = model.report();
            let [mapped, converted] = [report.mapped_bytes, report.converted_bytes]
                .map(|bytes| DecimalBytes(bytes as u64));
            eprintln!(
                "loaded on {device} in {seconds:.3} s: {mapped} as stored, {converted} converted"
            );
        }
        let timings = if self.images.len() == 1 && !args.json {
            self.stream(&model, first, &options, output)?
        } else {
            self.batches(&model, first, &options, args, output)?
        };
        if args.timings {
            eprintln!("{}", in_words(&timings));
        }
        Ok(())
    }

    fn stream(
        &self,
        model: &Victor,
        pictures: Vec<RgbImage>,
        options: &GenerateOptions,
        output: &mut Output,
    ) -> anyhow::Result<Timings> {
        let mut timings = Timings::default();
        for picture in pictures {
            let mut generation = model.generate(&Request::ask(picture, self.text), options)?;
            for token in &mut generation {
                output.piece(&token?.text)?;
            }
            output.line("")?;
            timings.merge(&generation.timings());
        }
        Ok(timings)
    }

    fn batches(
        &self,
        model: &Victor,
        first: Vec<RgbImage>,
        options: &GenerateOptions,
        args: &AnswerArgs,
        output: &mut Output,
    ) -> anyhow::Result<Timings> {
        let mut total = Timings::default();
        let mut first = Some(first);
        let bar = progress_bar(self.images.len());
        for paths in self.images.chunks(self.batch_size) {
            let pictures = match first.take() {
                Some(pictures) => pictures,
                None => pictures::decode(paths)?,
            };
            let requests: Vec<Request> = pictures
                .into_iter()
                .map(|picture| Request::ask(picture, self.text))
                .collect();
            let (completions, timings) = model.generate_batch(&requests, options)?;
            total.merge(&timings);
            bar.suspend(|| {
                for (path, completion) in paths.iter().zip(&completions) {
                    if args.json {
                        let timings = args.timings.then_some(BatchTimings {
                            batch_size: requests.len(),
                            timings,
                        });
                        output.json(&Answer::new(path, completion, timings))?;
                    } else {
                        output.line(format_args!(
                            "{}: {}",
                            path.display(),
                            one_line(completion)
                        ))?;
                    }
                }
                anyhow::Ok(())
            })?;
            bar.inc(paths.len() as u64);
        }
        bar.finish_and_clear();
        Ok(total)
    }
}

impl<'a> Answer<'a> {
    fn new(image: &'a Path, completion: &'a Completion, timings: Option<BatchTimings>) -> Self {
        Self {
            image,
            text: &completion.text,
            ids: &completion.ids,
            finish_reason: completion.finish_reason,
            prompt_tokens: completion.prompt_tokens,
            new_tokens: completion.ids.len(),
            timings,
        }
    }
}

/// The answer without line breaks, which would look like the next picture's line.
fn one_line(completion: &Completion) -> String {
    let lines = completion.text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A bar on standard error where that is a terminal and there is more than one picture.
pub(crate) fn progress_bar(length: usize) -> ProgressBar {
    if length < 2 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    let template = "{bar:30} {pos}/{len} {msg} [{elapsed_precise} < {eta_precise}]";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Where the time went.
pub(crate) fn in_words(timings: &Timings) -> String {
    let Timings {
        preprocess_s,
        vision_s,
        prefill_s,
        decode_s,
        decode_steps,
        kv_bytes,
    } = timings;
    format!(
        "preprocess {preprocess_s:.3} s, vision {vision_s:.3} s, prefill {prefill_s:.3} s, \
         decode {decode_s:.3} s ({decode_steps} steps), cache {}",
        DecimalBytes(*kv_bytes as u64)
    )
}
