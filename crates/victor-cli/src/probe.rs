//! `victor probe`: a classifier on the tower's features, to see what the rest of the model loses.

use crate::output::Output;
use clap::Args;
use std::path::PathBuf;
use victor::Device;
use victor_train::{ProbeConfig, Progress};

/// Train a small attention-pooling classifier on the tower's features and score it
#[derive(Args)]
pub(crate) struct ProbeArgs {
    /// Checkpoint whose tower gives the features; needs no projector
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Records with `label` to train on
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Records with `label` to score
    #[arg(long, value_name = "FILE")]
    test: PathBuf,
    /// Where features are kept
    #[arg(long, value_name = "DIR")]
    feature_cache: PathBuf,
    /// Passes over the training records
    #[arg(long, value_name = "N", default_value_t = 12)]
    epochs: usize,
    /// Decides the order and the first weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &ProbeArgs, output: &mut Output) -> anyhow::Result<()> {
    let config = ProbeConfig {
        model: args.model.clone(),
        train: args.train.clone(),
        test: args.test.clone(),
        feature_cache: args.feature_cache.clone(),
        epochs: args.epochs,
        seed: args.seed,
    };
    let report = victor_train::probe(&config, Device::best()?, Progress::Bars)?;
    output.line(format!(
        "top 1: {:.1} %, top 5: {:.1} % of {} pictures, {} labels, trained on {}",
        100.0 * report.top1,
        100.0 * report.top5,
        report.tested,
        report.labels,
        report.trained
    ))
}
