//! Records in LLaVA's format, and the captions and questions they are made of.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde::Serialize;

use super::concepts::Concept;
use super::sprites::Vendor;

/// What a picture is asked first.
pub(crate) const CAPTION_REQUEST: &str = "Describe the picture.";

/// One side's words in a conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Turn {
    pub(crate) from: &'static str,
    pub(crate) value: String,
}

/// One picture and what is said about it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// Path of the picture from the data set's folder.
    pub(crate) image: String,
    pub(crate) conversations: Vec<Turn>,
    pub(crate) set: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hexcode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vendor: Option<Vendor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<usize>,
    /// The labels in a scene, in reading order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<Vec<String>>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) answer: Option<String>,
}

impl Record {
    /// A record of `set` with the questions asked in turn, the picture going with the first.
    pub(crate) fn new(set: &'static str, id: String, image: String, asked: &[Question]) -> Self {
        Self {
            id,
            image,
            conversations: turns(asked),
            set,
            label: None,
            group: None,
            hexcode: None,
            vendor: None,
            variant: None,
            labels: None,
            kind: None,
            answer: None,
        }
    }
}

/// A question with its true answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Question {
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    pub(crate) answer: String,
}

impl Question {
    pub(crate) fn new(
        kind: &'static str,
        text: impl Into<String>,
        answer: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            text: text.into(),
            answer: answer.into(),
        }
    }

    /// The request for a caption of drawn things, named in reading order.
    pub(crate) fn caption(labels: &[&str]) -> Self {
        let caption = format!("A picture of {}.", enumerate(labels));
        Self::new("caption", CAPTION_REQUEST, caption)
    }

    pub(crate) fn colour(colour: &str) -> Self {
        Self::new("colour", "What is the background colour?", colour)
    }

    pub(crate) fn exists(label: &str, answer: bool) -> Self {
        let answer = if answer { "yes" } else { "no" };
        Self::new("exists", format!("Is there a {label}?"), answer)
    }

    pub(crate) fn what(label: &str) -> Self {
        Self::new("what", "What is it?", label)
    }

    pub(crate) fn kind_of_thing(kind: &str) -> Self {
        Self::new("kind", "What kind of thing is it?", kind)
    }
}

/// "Is there a …?", as often with the answer yes as no; the absent thing is one of `pool` that none
/// of the `shown` could be mistaken for.
pub(crate) fn balanced_exists(
    shown: &[&Concept],
    pool: &[&Concept],
    rng: &mut impl Rng,
) -> Option<Question> {
    if rng.random_bool(0.5) {
        return Some(Question::exists(&shown.choose(rng)?.label, true));
    }
    for _ in 0..50 {
        let absent = pool.choose(rng)?;
        if !shown.iter().any(|concept| concept.confusable(absent)) {
            return Some(Question::exists(&absent.label, false));
        }
    }
    None
}

/// `count` of the questions in random order, or all where there are fewer.
pub(crate) fn some_of(
    mut questions: Vec<Question>,
    count: usize,
    rng: &mut impl Rng,
) -> Vec<Question> {
    questions.shuffle(rng);
    questions.truncate(count);
    questions
}

/// `a`, `a and b`, `a, b and c`.
fn enumerate(labels: &[&str]) -> String {
    match labels {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn turns(asked: &[Question]) -> Vec<Turn> {
    let mut turns = Vec::with_capacity(asked.len() * 2);
    for question in asked {
        let value = if turns.is_empty() {
            format!("<image>\n{}", question.text)
        } else {
            question.text.clone()
        };
        turns.push(Turn {
            from: "human",
            value,
        });
        turns.push(Turn {
            from: "gpt",
            value: question.answer.clone(),
        });
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::concepts::tests::concept;
    use crate::data::item_rng;

    #[test]
    fn captions_name_things_in_order() {
        let caption = |labels: &[&str]| Question::caption(labels).answer;
        assert_eq!(caption(&["dog face"]), "A picture of dog face.");
        assert_eq!(caption(&["ox", "key"]), "A picture of ox and key.");
        assert_eq!(
            caption(&["ox", "key", "bed"]),
            "A picture of ox, key and bed."
        );
    }

    #[test]
    fn only_the_first_turn_carries_the_picture() {
        let asked = [Question::caption(&["ox"]), Question::what("ox")];
        let turns = turns(&asked);
        let values: Vec<_> = turns.iter().map(|t| t.value.as_str()).collect();
        assert_eq!(
            values,
            [
                "<image>\nDescribe the picture.",
                "A picture of ox.",
                "What is it?",
                "ox"
            ]
        );
    }

    #[test]
    fn yes_and_no_are_balanced_and_true() {
        let dog = concept("dog", "animals-nature");
        let others = [
            concept("guide dog", "animals-nature"),
            concept("key", "objects"),
        ];
        let pool: Vec<&Concept> = others.iter().chain([&dog]).collect();
        let mut yes = 0;
        for index in 0..400 {
            let rng = &mut item_rng(1, "exists", index);
            let question = balanced_exists(&[&dog], &pool, rng).expect("a key is always absent");
            match question.answer.as_str() {
                "yes" => yes += 1,
                _ => assert_eq!(question.text, "Is there a key?"),
            }
        }
        assert!((150..250).contains(&yes), "{yes} of 400 are yes");
    }
}
