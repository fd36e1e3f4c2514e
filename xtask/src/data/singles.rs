//! Sets of pictures that show one pictogram each.

use anyhow::Result;
use image::RgbImage;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::background::Background;
use super::concepts::Concept;
use super::conversation::{Question, Record, balanced_exists, some_of};
use super::item_rng;
use super::pictograms::Workshop;
use super::render::{Look, draw};
use super::sprites::Vendor;
use super::writer::Format;

/// Side of a pictogram in a picture of 224 pixels, where nothing is varied.
const PLAIN_SIZE: u32 = 192;

struct Single<'a> {
    concept: &'a Concept,
    vendor: Vendor,
    variant: usize,
}

/// Every so many variants a picture is asked more than for its caption: a name is learnt from captions,
/// and text rows cost as much as visual ones.
const TALKATIVE: usize = 3;

/// Every concept drawn by the training vendors: the first variant plain, the others varied.
pub(crate) fn train(shop: &Workshop) -> Result<Vec<Record>> {
    let mut items = Vec::new();
    for (concepts, variants) in [
        (&shop.eval, shop.options.variants),
        (&shop.others, shop.options.others),
    ] {
        for concept in concepts {
            for vendor in Vendor::TRAIN {
                if shop.sprites.has(vendor, &concept.hexcode) {
                    items.extend((0..variants).map(|variant| Single {
                        concept,
                        vendor,
                        variant,
                    }));
                }
            }
        }
    }
    shop.each("train-singles", &items, |item, _, rng| {
        let varied = item.variant > 0;
        let (canvas, colour) = picture(shop, item, varied, rng)?;
        let mut asked = vec![Question::caption(&[&item.concept.label])];
        let count = rng.random_range(1..=2);
        asked.extend(some_of(
            questions(shop, item.concept, colour, rng),
            count,
            rng,
        ));
        if item.variant % TALKATIVE != 0 {
            asked.truncate(1);
        }
        let format = if varied { Format::Jpeg } else { Format::Png };
        Ok(vec![record(
            shop,
            "train-singles",
            item,
            &asked,
            &canvas,
            format,
        )?])
    })
}

/// Every evaluated concept once, plain, by the vendor that is never trained on.
pub(crate) fn test(shop: &Workshop) -> Result<Vec<Record>> {
    let items: Vec<Single> = shop
        .eval
        .iter()
        .map(|concept| Single {
            concept,
            vendor: Vendor::Twemoji,
            variant: 0,
        })
        .collect();
    shop.each("test-singles", &items, |item, _, rng| {
        let (canvas, _) = picture(shop, item, false, rng)?;
        let asked = [Question::caption(&[&item.concept.label])];
        Ok(vec![record(
            shop,
            "test-singles",
            item,
            &asked,
            &canvas,
            Format::Png,
        )?])
    })
}

/// Some evaluated concepts in a look of their own, to watch a training run: concepts and vendor are
/// those of the training set, so this measures nothing held out but the look.
pub(crate) fn validation(shop: &Workshop, count: usize) -> Result<Vec<Record>> {
    let mut concepts = shop.eval.clone();
    concepts.shuffle(&mut item_rng(shop.options.seed, "val-choice", 0));
    concepts.truncate(count);
    let items: Vec<Single> = concepts
        .into_iter()
        .map(|concept| Single {
            concept,
            vendor: Vendor::Noto,
            variant: shop.options.variants,
        })
        .collect();
    shop.each("val-singles", &items, |item, _, rng| {
        let (canvas, _) = picture(shop, item, true, rng)?;
        let asked = [Question::caption(&[&item.concept.label])];
        Ok(vec![record(
            shop,
            "val-singles",
            item,
            &asked,
            &canvas,
            Format::Png,
        )?])
    })
}

/// The picture, with the name of its background's colour where that is plain.
fn picture(
    shop: &Workshop,
    item: &Single,
    varied: bool,
    rng: &mut ChaCha8Rng,
) -> Result<(RgbImage, Option<&'static str>)> {
    let size = shop.options.size;
    let pictogram = shop.sprites.picture(item.vendor, &item.concept.hexcode)?;
    let middle = size as f32 / 2.0;
    let (look, background, centre) = if varied {
        let look = Look::random(item.concept, shop.scaled(110)..=shop.scaled(210), rng);
        let room = size.saturating_sub(look.size) as f32 / 2.0;
        let centre = (
            middle + rng.random_range(-room..=room),
            middle + rng.random_range(-room..=room),
        );
        let background = Background::often_white(size, rng, &[&pictogram]);
        (look, background, centre)
    } else {
        let look = Look::plain(shop.scaled(PLAIN_SIZE));
        (look, Background::white(size), (middle, middle))
    };
    let mut canvas = background.canvas;
    draw(&mut canvas, &pictogram, &look, centre);
    Ok((canvas, background.colour))
}

/// What can truly be asked about a picture of one concept.
fn questions(
    shop: &Workshop,
    concept: &Concept,
    colour: Option<&str>,
    rng: &mut ChaCha8Rng,
) -> Vec<Question> {
    let pool = if concept.in_eval_group() {
        &shop.eval
    } else {
        &shop.others
    };
    let mut questions = vec![
        Question::what(&concept.label),
        Question::kind_of_thing(concept.kind),
    ];
    questions.extend(colour.map(Question::colour));
    questions.extend(balanced_exists(&[concept], pool, rng));
    questions
}

fn record(
    shop: &Workshop,
    set: &'static str,
    item: &Single,
    asked: &[Question],
    canvas: &RgbImage,
    format: Format,
) -> Result<Record> {
    let Single {
        concept,
        vendor,
        variant,
    } = item;
    let name = format!("{}-{}-{variant}", concept.hexcode, vendor.name());
    let image = shop.folder.picture(set, &name, canvas, format)?;
    Ok(Record {
        label: Some(concept.label.clone()),
        group: Some(concept.group),
        hexcode: Some(concept.hexcode.clone()),
        vendor: Some(*vendor),
        variant: Some(*variant),
        ..Record::new(set, format!("{set}-{name}"), image, asked)
    })
}
