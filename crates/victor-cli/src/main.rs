//! The `victor` command: a subcommand a file, results on standard output, all else on standard error.

mod answer;
mod args;
mod ask;
mod caption;
mod chat;
mod convert;
mod eval;
mod fetch;
mod info;
mod interrupt;
mod lines;
mod output;
mod pictures;
mod probe;
mod trace;
mod train;

use clap::{Parser, Subcommand};
use output::{Output, ReaderGone};
use std::process::ExitCode;

/// Vision-language models whose visual tokens give way to a few registers, in Rust.
#[derive(Parser)]
#[command(name = "victor", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Caption(caption::CaptionArgs),
    Ask(ask::AskArgs),
    Chat(chat::ChatArgs),
    Info(info::InfoArgs),
    Convert(convert::ConvertArgs),
    Trace(trace::TraceArgs),
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Probe(probe::ProbeArgs),
}

fn main() -> ExitCode {
    let mut output = Output::new();
    let done = match Cli::parse().command {
        Command::Caption(args) => caption::run(&args, &mut output),
        Command::Ask(args) => ask::run(&args, &mut output),
        Command::Chat(args) => chat::run(&args, &mut output),
        Command::Info(args) => info::run(&args, &mut output),
        Command::Trace(args) => trace::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Train(args) => train::run(&args, &mut output),
        Command::Eval(args) => eval::run(&args, &mut output),
        Command::Probe(args) => probe::run(&args, &mut output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and what led to it, a line each; a cause its effect already tells is not told again.
pub(crate) fn with_causes(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told.push_str("\n  caused by: ");
            told.push_str(&cause);
        }
    }
    told
}
