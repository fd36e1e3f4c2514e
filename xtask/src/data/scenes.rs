//! Sets of pictures that show two to four pictograms, each in a quadrant of its own.

use anyhow::{Result, ensure};
use image::{RgbImage, RgbaImage};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::background::Background;
use super::concepts::Concept;
use super::conversation::{Question, Record, balanced_exists, some_of};
use super::pictograms::Workshop;
use super::render::{Look, draw};
use super::sprites::Vendor;
use super::writer::Format;

/// The quadrants in reading order: bit 0 of the index is right, bit 1 is bottom.
const QUADRANTS: [&str; 4] = ["top left", "top right", "bottom left", "bottom right"];

const NUMBERS: [&str; 5] = ["none", "one", "two", "three", "four"];

/// Concepts with their quadrants, in reading order.
struct Scene<'a> {
    placed: Vec<(usize, &'a Concept)>,
    colour: Option<&'static str>,
    canvas: RgbImage,
}

/// Scenes by the training vendors: a caption and two or three questions.
pub(crate) fn train(shop: &Workshop) -> Result<Vec<Record>> {
    let items = vec![(); shop.options.scenes];
    shop.each("train-scenes", &items, |(), index, rng| {
        let scene = compose(shop, &Vendor::TRAIN, rng)?;
        let count = rng.random_range(2..=3);
        let mut asked = some_of(questions(shop, &scene, rng), count, rng);
        // A scene is tested with a question alone, so some must open with one here.
        let place = if rng.random_bool(shop.options.question_first) {
            rng.random_range(1..=asked.len())
        } else {
            0
        };
        asked.insert(place, Question::caption(&labels(&scene)));
        let name = format!("{index:05}");
        let image = shop
            .folder
            .picture("train-scenes", &name, &scene.canvas, Format::Jpeg)?;
        let id = format!("train-scenes-{name}");
        Ok(vec![Record {
            labels: Some(owned_labels(&scene)),
            ..Record::new("train-scenes", id, image, &asked)
        }])
    })
}

/// Scenes by the unseen vendor: one record for each question.
pub(crate) fn test(shop: &Workshop, count: usize) -> Result<Vec<Record>> {
    shop.each("test-scenes", &vec![(); count], |(), index, rng| {
        let scene = compose(shop, &[Vendor::Twemoji], rng)?;
        let name = format!("{index:05}");
        let image = shop
            .folder
            .picture("test-scenes", &name, &scene.canvas, Format::Png)?;
        let records = questions(shop, &scene, rng).into_iter().map(|question| {
            let id = format!("test-scenes-{name}-{}", question.kind);
            Record {
                labels: Some(owned_labels(&scene)),
                vendor: Some(Vendor::Twemoji),
                kind: Some(question.kind),
                answer: Some(question.answer.clone()),
                ..Record::new("test-scenes", id, image.clone(), &[question])
            }
        });
        Ok(records.collect())
    })
}

fn compose<'a>(shop: &'a Workshop, vendors: &[Vendor], rng: &mut ChaCha8Rng) -> Result<Scene<'a>> {
    let count = rng.random_range(2..=4);
    let mut quadrants = [0, 1, 2, 3];
    quadrants.shuffle(rng);
    let mut quadrants = quadrants[..count].to_vec();
    quadrants.sort_unstable();

    let chosen = choose(shop, count, rng)?;
    let mut pictures = Vec::with_capacity(count);
    for concept in &chosen {
        let drawn: Vec<Vendor> = vendors
            .iter()
            .copied()
            .filter(|vendor| shop.sprites.has(*vendor, &concept.hexcode))
            .collect();
        let vendor = *drawn.choose(rng).unwrap_or(&vendors[0]);
        pictures.push(shop.sprites.picture(vendor, &concept.hexcode)?);
    }
    let shown: Vec<&RgbaImage> = pictures.iter().collect();
    let Background { colour, mut canvas } = Background::varied(shop.options.size, rng, &shown);
    for ((quadrant, concept), picture) in quadrants.iter().zip(&chosen).zip(&pictures) {
        let look = Look::random(concept, shop.scaled(70)..=shop.scaled(105), rng);
        let centre = centre(*quadrant, shop.options.size, look.size, rng);
        draw(&mut canvas, picture, &look, centre);
    }
    Ok(Scene {
        placed: quadrants.into_iter().zip(chosen).collect(),
        colour,
        canvas,
    })
}

/// Concepts none of which could be mistaken for another.
fn choose<'a>(shop: &'a Workshop, count: usize, rng: &mut ChaCha8Rng) -> Result<Vec<&'a Concept>> {
    let mut chosen: Vec<&Concept> = Vec::with_capacity(count);
    for _ in 0..1000 {
        let Some(&concept) = shop.eval.choose(rng) else {
            break;
        };
        if !chosen.iter().any(|other| concept.confusable(other)) {
            chosen.push(concept);
        }
        if chosen.len() == count {
            break;
        }
    }
    ensure!(chosen.len() == count, "too few concepts for a scene");
    Ok(chosen)
}

/// A centre at which a pictogram of `side` pixels stays within its quadrant.
fn centre(quadrant: usize, size: u32, side: u32, rng: &mut impl Rng) -> (f32, f32) {
    let cell = size as f32 / 2.0;
    let room = ((cell - side as f32) / 2.0).max(0.0);
    let mut along = |far: usize| {
        let middle = cell * (far as f32 + 0.5);
        middle + rng.random_range(-room..=room)
    };
    (along(quadrant & 1), along(quadrant >> 1))
}

/// One question of each type that the scene can truly be asked.
fn questions(shop: &Workshop, scene: &Scene, rng: &mut ChaCha8Rng) -> Vec<Question> {
    let mut questions = vec![Question::new(
        "count",
        "How many things are there?",
        NUMBERS[scene.placed.len()],
    )];
    if let Some((quadrant, concept)) = scene.placed.choose(rng) {
        let text = format!("Where is the {}?", concept.label);
        questions.push(Question::new("where", text, QUADRANTS[*quadrant]));
    }
    if let Some((quadrant, concept)) = scene.placed.choose(rng) {
        let text = format!("What is in the {}?", QUADRANTS[*quadrant]);
        questions.push(Question::new("what", text, &concept.label));
    }
    questions.extend(scene.colour.map(Question::colour));
    let shown: Vec<&Concept> = scene.placed.iter().map(|(_, concept)| *concept).collect();
    questions.extend(balanced_exists(&shown, &shop.eval, rng));
    questions
}

fn labels<'a>(scene: &Scene<'a>) -> Vec<&'a str> {
    let placed = scene.placed.iter();
    placed.map(|(_, concept)| concept.label.as_str()).collect()
}

fn owned_labels(scene: &Scene) -> Vec<String> {
    labels(scene).into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::item_rng;

    #[test]
    fn a_pictogram_stays_within_its_quadrant() {
        for (quadrant, name) in QUADRANTS.iter().enumerate() {
            for index in 0..100 {
                let (x, y) = centre(quadrant, 224, 105, &mut item_rng(1, name, index));
                assert_eq!(name.ends_with("right"), x > 112.0);
                assert_eq!(name.starts_with("bottom"), y > 112.0);
                let inside = |at: f32| (52.5..=59.5).contains(&(at % 112.0));
                assert!(inside(x) && inside(y), "{name}: {x}, {y}");
            }
        }
    }
}
