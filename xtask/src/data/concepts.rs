//! Concepts: the emoji of the emojibase table with their names, and what may be done to their
//! pictures without making the name false.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result};
use serde::Deserialize;

/// emojibase's groups by number; number 2 (skin tones and hair) is no concept of its own.
const GROUPS: [(u8, &str); 9] = [
    (0, "smileys-emotion"),
    (1, "people-body"),
    (3, "animals-nature"),
    (4, "food-drink"),
    (5, "travel-places"),
    (6, "activities"),
    (7, "objects"),
    (8, "symbols"),
    (9, "flags"),
];

/// The groups whose concepts are things one can name: the ones that are tested.
const EVAL_GROUPS: [&str; 5] = [
    "animals-nature",
    "food-drink",
    "travel-places",
    "activities",
    "objects",
];

/// Words of a label whose picture would say something else when mirrored or turned by much.
const ORIENTED: &[&str] = &[
    "left",
    "right",
    "clock",
    "thirty",
    "moon",
    "increasing",
    "decreasing",
    "globe",
    "map",
    "departure",
    "arrival",
    "mail",
    "dvd",
    "calendar",
    "newspaper",
    "banknote",
    "stop",
    "medal",
    "8",
    "joker",
    "mahjong",
    "cards",
    "hotel",
    "hospital",
    "bank",
    "store",
    "station",
    "euro",
    "ticket",
    "tickets",
    "ballot",
    "chart",
    "book",
    "tokyo",
    "receipt",
    "soon",
    "quarter",
    "keyboard",
    "musical",
    "note",
    "notes",
    "card",
    "label",
    "police",
    "ambulance",
    "taxi",
];

const COLOURS: &[&str] = &[
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
    "grey", "medal", "rainbow", "colour",
];

/// One thing with a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Concept {
    /// emojibase's English label, unchanged.
    pub(crate) label: String,
    /// Code points in lower-case hexadecimal, joined by `-`, without variation selectors.
    pub(crate) hexcode: String,
    pub(crate) group: &'static str,
    /// The answer to "What kind of thing is it?".
    pub(crate) kind: &'static str,
    tags: Vec<String>,
}

impl Concept {
    /// Whether it belongs to a group that is tested.
    pub(crate) fn in_eval_group(&self) -> bool {
        EVAL_GROUPS.contains(&self.group)
    }

    /// Whether a mirrored picture, or one turned by more than a little, could belie the label.
    pub(crate) fn is_oriented(&self) -> bool {
        matches!(self.group, "symbols" | "flags") || self.has_word(ORIENTED)
    }

    /// Whether the label names a colour.
    pub(crate) fn is_coloured(&self) -> bool {
        matches!(self.group, "symbols" | "flags") || self.has_word(COLOURS)
    }

    /// Whether a picture of one might fairly be called the other: they share a word, or one's
    /// label is a tag of the other.
    pub(crate) fn confusable(&self, other: &Concept) -> bool {
        let ours: HashSet<String> = words(&self.label).collect();
        words(&other.label).any(|word| ours.contains(&word))
            || self.tags.contains(&other.label)
            || other.tags.contains(&self.label)
    }

    fn has_word(&self, list: &[&str]) -> bool {
        words(&self.label).any(|word| list.contains(&word.as_str()))
    }
}

/// Reads emojibase's `data.json` and `groups.json`; skin-tone variants and components are left out.
pub(crate) fn read(entries: &[u8], groups: &[u8]) -> Result<Vec<Concept>> {
    #[derive(Deserialize)]
    struct Entry {
        label: String,
        hexcode: String,
        group: Option<u8>,
        subgroup: Option<u32>,
        #[serde(default)]
        tags: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Groups {
        subgroups: BTreeMap<u32, String>,
    }
    let entries: Vec<Entry> = serde_json::from_slice(entries).context("emojibase data.json")?;
    let groups: Groups = serde_json::from_slice(groups).context("emojibase groups.json")?;
    let concepts = entries.into_iter().filter_map(|entry| {
        let (_, group) = GROUPS.iter().find(|(id, _)| Some(*id) == entry.group)?;
        let subgroup = groups.subgroups.get(&entry.subgroup?)?;
        Some(Concept {
            label: entry.label,
            hexcode: normal_hexcode(&entry.hexcode),
            group,
            kind: kind(group, subgroup),
            tags: entry.tags,
        })
    });
    Ok(concepts.collect())
}

/// A code point sequence in the one spelling that all vendors can be joined on: lower case, four
/// digits at least, without the variation selector that vendors add or leave out.
pub(crate) fn normal_hexcode(hexcode: &str) -> String {
    let parts: Vec<String> = hexcode
        .to_lowercase()
        .split('-')
        .filter(|part| *part != "fe0f")
        .map(|part| format!("{part:0>4}"))
        .collect();
    parts.join("-")
}

/// Some subgroups do not fit their group's name: a clock is no place, and a fork no food.
fn kind(group: &str, subgroup: &str) -> &'static str {
    match (group, subgroup) {
        ("travel-places", "time") => "time",
        ("travel-places", "sky-weather") => "sky or weather",
        ("travel-places", "hotel") | ("food-drink", "dishware") => "object",
        ("animals-nature", _) => "animal or plant",
        ("food-drink", _) => "food or drink",
        ("travel-places", _) => "place or vehicle",
        ("activities", _) => "activity",
        ("objects", _) => "object",
        ("smileys-emotion", _) => "face or emotion",
        ("people-body", _) => "person or body part",
        ("flags", _) => "flag",
        _ => "symbol",
    }
}

fn words(label: &str) -> impl Iterator<Item = String> + '_ {
    label
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty() && !matches!(*word, "of" | "with" | "and" | "in" | "on"))
        .map(str::to_lowercase)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn concept(label: &str, group: &'static str) -> Concept {
        Concept {
            label: label.into(),
            hexcode: "1f436".into(),
            group,
            kind: kind(group, ""),
            tags: Vec::new(),
        }
    }

    #[test]
    fn spellings_of_one_hexcode_meet() {
        assert_eq!(normal_hexcode("26D3-FE0F-200D-1F4A5"), "26d3-200d-1f4a5");
        assert_eq!(normal_hexcode("a9-fe0f"), "00a9");
        assert_eq!(normal_hexcode("00A9"), "00a9");
    }

    #[test]
    fn the_table_is_joined_with_its_groups() -> Result<()> {
        let entries = br#"[
            {"label":"dog face","hexcode":"1F436","group":3,"subgroup":34,"tags":["dog"]},
            {"label":"light skin tone","hexcode":"1F3FB","group":2,"subgroup":32},
            {"label":"regional indicator A","hexcode":"1F1E6"},
            {"label":"watch","hexcode":"231A","group":5,"subgroup":58}]"#;
        let groups = br#"{"subgroups":{"34":"animal-mammal","32":"skin-tone","58":"time"}}"#;
        let concepts = read(entries, groups)?;
        let labels: Vec<_> = concepts.iter().map(|c| (&*c.label, c.kind)).collect();
        assert_eq!(labels, [("dog face", "animal or plant"), ("watch", "time")]);
        assert!(concepts.iter().all(Concept::in_eval_group));
        Ok(())
    }

    #[test]
    fn labels_forbid_what_would_belie_them() {
        assert!(concept("magnifying glass tilted left", "objects").is_oriented());
        assert!(concept("three o’clock", "travel-places").is_oriented());
        assert!(concept("chart decreasing", "objects").is_oriented());
        assert!(!concept("dog", "animals-nature").is_oriented());
        assert!(concept("red apple", "food-drink").is_coloured());
        assert!(!concept("pear", "food-drink").is_coloured());
    }

    #[test]
    fn near_synonyms_are_confusable() {
        let dog = concept("dog", "animals-nature");
        assert!(dog.confusable(&concept("guide dog", "animals-nature")));
        assert!(!dog.confusable(&concept("hot pepper", "food-drink")));
        let mut ox = concept("ox", "animals-nature");
        ox.tags.push("cow".into());
        assert!(concept("cow", "animals-nature").confusable(&ox));
    }
}
