//! `victor eval`: scores a model on held-out records.

use crate::answer::progress_bar;
use crate::args::{DeviceArgs, ModelArgs, check_out};
use crate::output::Output;
use crate::pictures;
use anyhow::Context;
use clap::Args;
use rayon::prelude::*;
use serde::Serialize;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use victor::parts::data::{ConversationSet, Record};
use victor::score::{CaptionReport, Expected, Labels, Outcome, QuestionReport, Report, Scores};
use victor::{CAPTION_PROMPT, Content, GenerateOptions, Message, Prompt, Request, Role, Victor};

/// Score a model on held-out records
///
/// Records with `label` are captioned: a hit holds the label as whole words and no other label.
/// Records with `type` and `answer` are asked their first question: the answer must be the same,
/// but for case and a final dot.
#[derive(Args)]
pub(crate) struct EvalArgs {
    /// Records: a JSON array, or one a line [default: data/pictograms/test-singles.json, what the
    /// default weights are scored on]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Folder the records' pictures are in [default: that of the records]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// All labels a caption may name [default: labels.json beside the records, else their labels]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Records answered together
    #[arg(long, value_name = "N", default_value = "16")]
    batch_size: NonZeroUsize,
    /// At most so many new tokens
    #[arg(long, value_name = "N", default_value = "32")]
    max_new_tokens: NonZeroUsize,
    /// Only the first N records
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
    /// The scores as one JSON object
    #[arg(long)]
    json: bool,
    /// Write every answer, a JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What the score of the default weights is taken on.
const HELD_OUT: &str = "data/pictograms/test-singles.json";

impl EvalArgs {
    /// The file of records.
    fn data(&self) -> anyhow::Result<&Path> {
        if let Some(data) = &self.data {
            return Ok(data);
        }
        anyhow::ensure!(
            Path::new(HELD_OUT).is_file(),
            "{HELD_OUT} is not here; `cargo xtask data pictograms` makes it, and --data names other records"
        );
        Ok(Path::new(HELD_OUT))
    }
}

/// A record with what it expects.
struct Task<'a> {
    record: &'a Record,
    expected: Expected,
}

/// An answer and what became of it, for `--out`.
#[derive(Serialize)]
struct Prediction<'a> {
    id: &'a str,
    images: &'a [PathBuf],
    expected: &'a str,
    text: &'a str,
    #[serde(flatten)]
    outcome: Outcome,
}

pub(crate) fn run(args: &EvalArgs, output: &mut Output) -> anyhow::Result<()> {
    if let Some(out) = &args.out {
        check_out(out)?;
    }
    let data = args.data()?;
    let folder = data.parent().unwrap_or(Path::new(""));
    let images = args.images.as_deref().unwrap_or(folder);
    let set = ConversationSet::load(data, images, false)?;
    let tasks = tasks(data, set.records())?;
    let mut scores = Scores::new(labels(args, folder, &tasks)?);
    let limit = args.limit.map_or(tasks.len(), NonZeroUsize::get);
    let tasks = &tasks[..limit.min(tasks.len())];

    let model = args.model.open(&args.device)?;
    let lines = answer(args, &model, tasks, &mut scores)?;
    if let Some(out) = &args.out {
        write_whole(out, &lines)?;
    }
    let report = scores.report();
    if args.json {
        return output.json(&report);
    }
    show(&report, output)
}

fn tasks<'a>(data: &Path, records: &'a [Record]) -> anyhow::Result<Vec<Task<'a>>> {
    let path = data.display();
    anyhow::ensure!(!records.is_empty(), "{path}: holds no record");
    let task = |record: &'a Record| {
        let expected = Expected::from_fields(&record.extra).with_context(|| {
            format!(
                "{path}: record {} has no `label`, nor `type` and `answer`, to score by",
                record.id
            )
        })?;
        Ok(Task { record, expected })
    };
    records.iter().map(task).collect()
}

fn labels(args: &EvalArgs, folder: &Path, tasks: &[Task]) -> anyhow::Result<Labels> {
    let beside = Some(folder.join("labels.json")).filter(|path| path.is_file());
    if let Some(path) = args.labels.clone().or(beside) {
        return Ok(Labels::from_file(&path)?);
    }
    let own = tasks.iter().filter_map(|task| match &task.expected {
        Expected::Label { label, .. } => Some(label.as_str()),
        Expected::Answer { .. } => None,
    });
    Ok(Labels::new(own))
}

/// Answers all tasks and scores them; returns the lines of `--out`.
fn answer(
    args: &EvalArgs,
    model: &Victor,
    tasks: &[Task],
    scores: &mut Scores,
) -> anyhow::Result<Vec<String>> {
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens.get(),
        ..Default::default()
    };
    let mut lines = Vec::with_capacity(tasks.len());
    let bar = progress_bar(tasks.len());
    for tasks in tasks.chunks(args.batch_size.get()) {
        let requests: anyhow::Result<Vec<Request>> = tasks.par_iter().map(Task::request).collect();
        let (completions, _) = model.generate_batch(&requests?, &options)?;
        for (task, completion) in tasks.iter().zip(&completions) {
            let outcome = scores.push(&task.expected, &completion.text);
            let prediction = Prediction {
                id: &task.record.id,
                images: &task.record.images,
                expected: match &task.expected {
                    Expected::Label { label, .. } => label,
                    Expected::Answer { answer, .. } => answer,
                },
                text: &completion.text,
                outcome,
            };
            lines.push(serde_json::to_string(&prediction)?);
        }
        bar.set_message(format!("{:.1} % right", scores.percent()));
        bar.inc(tasks.len() as u64);
    }
    bar.finish_and_clear();
    Ok(lines)
}

impl Task<'_> {
    /// The caption's instruction, or the first question with what stands before it.
    fn request(&self) -> anyhow::Result<Request> {
        let messages = match &self.expected {
            Expected::Label { .. } => {
                vec![Message::user(self.record.images.len(), CAPTION_PROMPT)]
            }
            Expected::Answer { .. } => {
                let mut messages = self.record.messages();
                let first = messages.iter().position(|turn| turn.role == Role::User);
                messages.truncate(first.map_or(0, |first| first + 1));
                messages
            }
        };
        let parts = messages.iter().flat_map(|message| &message.content);
        let count = parts.filter(|part| **part == Content::Image).count();
        Ok(Request {
            prompt: Prompt::Chat(messages),
            images: pictures::decode(&self.record.images[..count])?,
        })
    }
}

/// Writes lines beside `path` and renames them when they are whole.
fn write_whole(path: &Path, lines: &[String]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let write = || {
        let mut file = tempfile::Builder::new()
            .prefix(".victor-eval-")
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.persist(path)?;
        std::io::Result::Ok(())
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

fn show(report: &Report, output: &mut Output) -> anyhow::Result<()> {
    if let Some(captions) = &report.captions {
        show_captions(captions, output)?;
    }
    if let Some(questions) = &report.questions {
        show_questions(questions, output)?;
    }
    Ok(())
}

fn show_captions(report: &CaptionReport, output: &mut Output) -> anyhow::Result<()> {
    let mut row = |group: &str, percent: f64, hits: usize, count: usize| {
        output.line(format_args!(
            "{group:<24}{percent:>7.1} %{hits:>8}{count:>8}"
        ))
    };
    row("captions", report.percent, report.hits, report.count)?;
    for group in &report.groups {
        let name = format!("  {}", group.group);
        row(&name, group.percent, group.hits, group.count)?;
    }
    output.line(format_args!(
        "Columns: hits in percent, hits, pictures; judged among {} labels.\n\
         Misses: {} name no right label, {} another beside it, {} one that reaches over it.",
        report.labels, report.absent, report.another, report.overlapped
    ))
}

fn show_questions(report: &QuestionReport, output: &mut Output) -> anyhow::Result<()> {
    output.line(format_args!(
        "{:<16}{:>9}{:>8}{:>10}{:>10}  majority answer",
        "questions", "right", "asked", "majority", "balanced"
    ))?;
    for kind in &report.kinds {
        let balanced = kind.balanced_percent;
        output.line(format_args!(
            "  {:<14}{:>7.1} %{:>8}{:>8.1} %{:>10}  {}",
            kind.kind,
            kind.percent,
            kind.count,
            kind.majority_percent,
            balanced.map_or_else(String::new, |share| format!("{share:.1} %")),
            kind.majority_answer
        ))?;
    }
    output.line(format_args!(
        "  {:<14}{:>7.1} %{:>8}",
        "all", report.percent, report.count
    ))
}
