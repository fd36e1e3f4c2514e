//! `cargo xtask data pictograms`: pictures of named pictograms, alone and in scenes, and photos.
//!
//! Noto and Fluent are trained on and Twemoji is tested on: the concepts are the same, every drawing
//! of the test is unseen.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::concepts::{self, Concept};
use super::conversation::Record;
use super::photos::{self, Photos};
use super::sprites::{Sprites, Vendor};
use super::writer::Folder;
use super::{item_rng, licences, scenes, singles};
use crate::packages;

const TEST_SCENES: usize = 300;
const TEST_PHOTOS: usize = 200;
const VALIDATION_SINGLES: usize = 150;

#[derive(Args, Serialize)]
pub(crate) struct Options {
    /// Folder of the data set; replaced when the new one is complete.
    #[arg(long, default_value = "data/pictograms")]
    #[serde(skip)]
    out: PathBuf,
    /// Folder of fetched packages.
    #[arg(long, default_value = "data/packages")]
    #[serde(skip)]
    packages: PathBuf,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Training pictures of each tested concept by each vendor.
    #[arg(long, default_value_t = 5)]
    pub(crate) variants: usize,
    /// Training pictures of each other concept by each vendor.
    #[arg(long, default_value_t = 1)]
    pub(crate) others: usize,
    /// Training scenes.
    #[arg(long, default_value_t = 4000)]
    pub(crate) scenes: usize,
    /// Training photos.
    #[arg(long, default_value_t = 2000)]
    photos: usize,
    /// Share of the training scenes whose conversation opens with a question, not the caption.
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    pub(crate) question_first: f64,
    /// Side of the pictures in pixels.
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(32..=2048))]
    pub(crate) size: u32,
}

/// What every set is made from.
pub(crate) struct Workshop<'a> {
    pub(crate) options: &'a Options,
    /// The concepts that are tested.
    pub(crate) eval: Vec<&'a Concept>,
    /// Concepts that are only trained on.
    pub(crate) others: Vec<&'a Concept>,
    pub(crate) sprites: &'a Sprites,
    pub(crate) folder: &'a Folder,
}

impl Workshop<'_> {
    /// Makes the records of a set on all cores; they come in the order of `items`.
    pub(crate) fn each<T: Sync>(
        &self,
        set: &'static str,
        items: &[T],
        make: impl Fn(&T, usize, &mut ChaCha8Rng) -> Result<Vec<Record>> + Sync,
    ) -> Result<Vec<Record>> {
        self.folder.add_set(set)?;
        let style = ProgressStyle::with_template("{msg:14} {wide_bar} {pos}/{len} {elapsed}")?;
        let bar = ProgressBar::new(items.len() as u64)
            .with_style(style)
            .with_message(set);
        let records: Result<Vec<Vec<Record>>> = items
            .par_iter()
            .enumerate()
            .map(|(index, item)| {
                let rng = &mut item_rng(self.options.seed, set, index);
                let records = make(item, index, rng);
                bar.inc(1);
                records
            })
            .collect();
        bar.finish();
        Ok(records?.into_iter().flatten().collect())
    }

    /// A length that is given for pictures of 224 pixels, at this data set's size.
    pub(crate) fn scaled(&self, length: u32) -> u32 {
        length * self.options.size / 224
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let emojibase = packages::npm(licences::EMOJIBASE, &options.packages)?;
    let concepts = concepts::read(
        &packages::file(&emojibase, "package/en/data.json")?,
        &packages::file(&emojibase, "package/meta/groups.json")?,
    )?;
    let hexcodes: HashSet<&str> = concepts.iter().map(|c| c.hexcode.as_str()).collect();
    let sprites = Sprites::read(&hexcodes, &options.packages)?;
    let (things, others): (Vec<&Concept>, Vec<&Concept>) =
        concepts.iter().partition(|concept| concept.in_eval_group());
    let drawn = |concept: &&Concept| {
        [Vendor::Noto, Vendor::Twemoji]
            .iter()
            .all(|vendor| sprites.has(*vendor, &concept.hexcode))
    };
    let folder = Folder::create(&options.out)?;
    let shop = Workshop {
        options,
        eval: things.into_iter().filter(drawn).collect(),
        others,
        sprites: &sprites,
        folder: &folder,
    };
    ensure!(!shop.eval.is_empty(), "the vendors share no concept");
    let counts = write(&shop)?;
    folder.finish()?;
    eprintln!("{}: {counts:?}", options.out.display());
    Ok(())
}

/// Writes every set and returns the number of records in each file.
fn write(shop: &Workshop) -> Result<BTreeMap<&'static str, usize>> {
    let options = shop.options;
    let mut counts = BTreeMap::new();
    let mut save = |name: &'static str, records: &[Record]| {
        counts.insert(name, records.len());
        shop.folder.json(&format!("{name}.json"), &records)
    };

    let mut train = Vec::new();
    let photos = Photos::train(&options.packages)?;
    for (name, records) in [
        ("train-singles", singles::train(shop)?),
        ("train-scenes", scenes::train(shop)?),
        (
            "train-photos",
            photos::records(shop, &photos, "train-photos", options.photos, true)?,
        ),
    ] {
        save(name, &records)?;
        train.extend(records);
    }
    drop(photos);
    train.shuffle(&mut item_rng(options.seed, "train", 0));
    save("train", &train)?;

    save(
        "val-singles",
        &singles::validation(shop, VALIDATION_SINGLES)?,
    )?;
    save("test-singles", &singles::test(shop)?)?;
    save("test-scenes", &scenes::test(shop, TEST_SCENES)?)?;
    let photos = Photos::test(&options.packages)?;
    save(
        "test-photos",
        &photos::records(shop, &photos, "test-photos", TEST_PHOTOS, false)?,
    )?;

    describe(shop, &counts)?;
    Ok(counts)
}

/// Writes what there is to know about the data set besides its records.
fn describe(shop: &Workshop, counts: &BTreeMap<&'static str, usize>) -> Result<()> {
    #[derive(Serialize)]
    struct Label<'a> {
        label: &'a str,
        hexcode: &'a str,
        group: &'a str,
    }
    let labels: Vec<Label> = shop
        .eval
        .iter()
        .map(|concept| Label {
            label: &concept.label,
            hexcode: &concept.hexcode,
            group: concept.group,
        })
        .collect();
    shop.folder.json("labels.json", &labels)?;
    shop.folder.text("LICENSES.md", &licences::text())?;
    shop.folder.json(
        "meta.json",
        &serde_json::json!({
            "options": shop.options,
            "concepts": { "tested": shop.eval.len(), "others": shop.others.len() },
            "records": counts,
            "sources": licences::SOURCES,
            "notes": {
                "test-singles": "concepts of the training set, drawn by a vendor that is in no training set",
                "val-singles": "held out neither by concept nor by vendor: training concepts and a training vendor in a new look",
            },
        }),
    )
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".into()),
    }
}
