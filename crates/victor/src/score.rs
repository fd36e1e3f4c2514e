//! How good answers are: captions against a list of labels, short answers against their right ones.
//!
//! Nothing here generates; whoever does pushes answers into [`Scores`] and asks for the [`Report`].

mod report;

use report::percent;
pub use report::{CaptionReport, GroupReport, KindReport, QuestionReport, Report};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use victor_data::DataError;

/// What a record says is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A caption that holds this label and no other.
    Label {
        /// The label.
        label: String,
        /// What the label is counted under.
        group: String,
    },
    /// Exactly this answer.
    Answer {
        /// The kind of question, under which it is counted.
        kind: String,
        /// The right answer.
        answer: String,
    },
}

impl Expected {
    /// Reads `label` (and `group`), or `type` and `answer`; `None` where a record has neither.
    pub fn from_fields(fields: &Map<String, Value>) -> Option<Self> {
        let text = |name| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(label) = text("label") {
            let group = text("group").unwrap_or_else(|| "all".into());
            return Some(Self::Label { label, group });
        }
        Some(Self::Answer {
            kind: text("type")?,
            answer: text("answer")?,
        })
    }
}

/// How a caption stands to its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds the label and no other.
    Hit,
    /// It holds the label, and another that reaches over it: `dog` in "a hot dog".
    Overlapped,
    /// It holds the label, and another elsewhere.
    Another,
    /// It does not hold the label.
    Absent,
}

/// All labels a caption may name.
#[derive(Clone, Debug, Default)]
pub struct Labels(Vec<String>);

impl Labels {
    /// From the labels themselves.
    pub fn new<'a>(labels: impl IntoIterator<Item = &'a str>) -> Self {
        let mut labels: Vec<String> = labels.into_iter().map(plain).collect();
        labels.retain(|label| !label.is_empty());
        labels.sort();
        labels.dedup();
        Self(labels)
    }

    /// Reads a JSON array of labels, or of objects with a `label`.
    ///
    /// # Errors
    /// If the file cannot be read or holds something else.
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Bare(String),
            Named { label: String },
        }
        let text = std::fs::read_to_string(path).map_err(|source| DataError::ReadFile {
            path: path.into(),
            source,
        })?;
        let entries: Vec<Entry> =
            serde_json::from_str(&text).map_err(|source| DataError::ParseJson {
                path: path.into(),
                expected: "an array of labels, or of objects with a `label`",
                source,
            })?;
        Ok(Self::new(entries.iter().map(|entry| match entry {
            Entry::Bare(label) | Entry::Named { label } => label.as_str(),
        })))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Judges a caption. Labels count as whole words, whatever their case; those inside the span of
    /// `label` do not count.
    pub fn judge(&self, caption: &str, label: &str) -> Verdict {
        let (caption, label) = (plain(caption), plain(label));
        let own = whole_words(&caption, &label);
        if own.is_empty() {
            return Verdict::Absent;
        }
        let others = self.0.iter().filter(|other| **other != label);
        let mut verdict = Verdict::Hit;
        for found in others.flat_map(|other| whole_words(&caption, other)) {
            let inside = |own: &Range<usize>| own.start <= found.start && found.end <= own.end;
            let touches = |own: &Range<usize>| own.start < found.end && found.start < own.end;
            if own.iter().any(inside) {
                continue;
            }
            if !own.iter().any(touches) {
                return Verdict::Another;
            }
            verdict = Verdict::Overlapped;
        }
        verdict
    }
}

/// Lower case, with single spaces.
fn plain(text: &str) -> String {
    let words = text.split_whitespace().map(str::to_lowercase);
    words.collect::<Vec<_>>().join(" ")
}

/// Where `words` stands in `text` with no letter or digit right before or after it.
fn whole_words(text: &str, words: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if words.is_empty() {
        return found;
    }
    let mut from = 0;
    while let Some(at) = text[from..].find(words).map(|at| from + at) {
        let end = at + words.len();
        let before = text[..at].chars().next_back();
        let after = text[end..].chars().next();
        if !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric) {
            found.push(at..end);
        }
        from = at + text[at..].chars().next().map_or(1, char::len_utf8);
    }
    found
}

/// An answer as it is compared: lower case, trimmed, without a final dot.
pub fn normalize_answer(answer: &str) -> String {
    let answer = answer.trim().to_lowercase();
    let answer = answer.strip_suffix('.').unwrap_or(&answer);
    answer.trim_end().to_owned()
}

/// Counts answers.
#[derive(Clone, Debug)]
pub struct Scores {
    labels: Labels,
    groups: BTreeMap<String, BTreeMap<&'static str, usize>>,
    /// By kind of question and right answer: correct answers, answers.
    kinds: BTreeMap<String, BTreeMap<String, (usize, usize)>>,
}

/// What became of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Whether it counts as right.
    pub correct: bool,
    /// For captions, why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

impl Scores {
    /// Nothing counted yet; captions are judged among `labels`.
    pub fn new(labels: Labels) -> Self {
        Self {
            labels,
            groups: BTreeMap::new(),
            kinds: BTreeMap::new(),
        }
    }

    /// Judges and counts one answer.
    pub fn push(&mut self, expected: &Expected, found: &str) -> Outcome {
        match expected {
            Expected::Label { label, group } => {
                let verdict = self.labels.judge(found, label);
                let counts = self.groups.entry(group.clone()).or_default();
                *counts.entry(verdict.key()).or_default() += 1;
                Outcome {
                    correct: verdict == Verdict::Hit,
                    verdict: Some(verdict),
                }
            }
            Expected::Answer { kind, answer } => {
                let answer = normalize_answer(answer);
                let correct = normalize_answer(found) == answer;
                let kinds = self.kinds.entry(kind.clone()).or_default();
                let (right, all) = kinds.entry(answer).or_default();
                *right += usize::from(correct);
                *all += 1;
                Outcome {
                    correct,
                    verdict: None,
                }
            }
        }
    }

    /// The share of all answers so far that are right, in percent.
    pub fn percent(&self) -> f64 {
        let report = self.report();
        let captions = report
            .captions
            .map_or((0, 0), |part| (part.hits, part.count));
        let questions = report
            .questions
            .map_or((0, 0), |part| (part.correct, part.count));
        percent(captions.0 + questions.0, captions.1 + questions.1)
    }

    /// The scores so far.
    pub fn report(&self) -> Report {
        Report {
            captions: (!self.groups.is_empty()).then(|| self.captions()),
            questions: (!self.kinds.is_empty()).then(|| self.questions()),
        }
    }

    fn captions(&self) -> CaptionReport {
        let total = |verdict: Verdict| -> usize {
            let counts = self.groups.values();
            counts.filter_map(|counts| counts.get(verdict.key())).sum()
        };
        let group = |(group, counts): (&String, &BTreeMap<&str, usize>)| {
            let hits = counts.get(Verdict::Hit.key()).copied().unwrap_or(0);
            let count = counts.values().sum();
            GroupReport {
                group: group.clone(),
                count,
                hits,
                percent: percent(hits, count),
            }
        };
        let groups: Vec<GroupReport> = self.groups.iter().map(group).collect();
        let count = groups.iter().map(|group| group.count).sum();
        let hits = total(Verdict::Hit);
        CaptionReport {
            labels: self.labels.len(),
            count,
            hits,
            percent: percent(hits, count),
            overlapped: total(Verdict::Overlapped),
            another: total(Verdict::Another),
            absent: total(Verdict::Absent),
            groups,
        }
    }

    fn questions(&self) -> QuestionReport {
        let kinds: Vec<KindReport> = self
            .kinds
            .iter()
            .map(|(kind, answers)| KindReport::new(kind, answers))
            .collect();
        let count = kinds.iter().map(|kind| kind.count).sum();
        let correct = kinds.iter().map(|kind| kind.correct).sum();
        QuestionReport {
            count,
            correct,
            percent: percent(correct, count),
            kinds,
        }
    }
}

impl Verdict {
    fn key(self) -> &'static str {
        match self {
            Verdict::Hit => "hit",
            Verdict::Overlapped => "overlapped",
            Verdict::Another => "another",
            Verdict::Absent => "absent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(label: &str, group: &str) -> Expected {
        Expected::Label {
            label: label.into(),
            group: group.into(),
        }
    }

    fn answer(kind: &str, answer: &str) -> Expected {
        Expected::Answer {
            kind: kind.into(),
            answer: answer.into(),
        }
    }

    #[test]
    fn a_hit_holds_its_label_alone_and_as_whole_words() {
        let labels = Labels::new(["dog", "hot dog", "Cat", "ox", "T-Rex", "piñata"]);
        let judge = |caption, label| labels.judge(caption, label);
        assert_eq!(judge("A picture of Dog.", "dog"), Verdict::Hit);
        assert_eq!(judge("a t-rex!", "T-Rex"), Verdict::Hit);
        assert_eq!(judge("A Piñata", "piñata"), Verdict::Hit);
        assert_eq!(judge("a dog, a dog", "dog"), Verdict::Hit);
        assert_eq!(judge("a foxhound and dogs", "dog"), Verdict::Absent);
        assert_eq!(judge("a foxhound", "ox"), Verdict::Absent);
        assert_eq!(judge("", "ox"), Verdict::Absent);
        assert_eq!(judge("a dog and a CAT", "dog"), Verdict::Another);
    }

    #[test]
    fn labels_inside_the_matched_one_do_not_count_and_longer_ones_do() {
        let labels = Labels::new(["dog", "hot dog", "dog face"]);
        assert_eq!(labels.judge("a hot\n dog", "hot dog"), Verdict::Hit);
        assert_eq!(labels.judge("a hot dog", "dog"), Verdict::Overlapped);
        assert_eq!(
            labels.judge("hot dog and a dog", "hot dog"),
            Verdict::Another
        );
        assert_eq!(labels.judge("hot dog face", "hot dog"), Verdict::Overlapped);
    }

    #[test]
    fn captions_are_counted_by_group() {
        let mut scores = Scores::new(Labels::new(["dog", "cat", "cup"]));
        assert!(scores.push(&label("dog", "animals"), "A dog.").correct);
        assert!(!scores.push(&label("cat", "animals"), "A dog.").correct);
        assert!(
            !scores
                .push(&label("cup", "things"), "A cup and a cat.")
                .correct
        );
        let report = scores.report();
        assert!(report.questions.is_none());
        let captions = report.captions.expect("captions were pushed");
        assert_eq!((captions.count, captions.hits, captions.labels), (3, 1, 3));
        assert_eq!(
            (captions.overlapped, captions.another, captions.absent),
            (0, 1, 1)
        );
        let groups = captions.groups.iter();
        let groups: Vec<_> = groups
            .map(|g| (g.group.as_str(), g.count, g.percent))
            .collect();
        assert_eq!(groups, [("animals", 2, 50.0), ("things", 1, 0.0)]);
    }

    #[test]
    fn questions_stand_beside_the_majority_and_yes_no_is_balanced() {
        let mut scores = Scores::new(Labels::default());
        for (right, found) in [
            ("yes", "Yes."),
            ("yes", " yes"),
            ("yes", "no"),
            ("no", "yes"),
        ] {
            scores.push(&answer("exists", right), found);
        }
        scores.push(&answer("count", "two"), "TWO .");
        scores.push(&answer("count", "four"), "fourteen");
        let report = scores.report().questions.expect("questions were pushed");
        assert_eq!((report.count, report.correct), (6, 3));
        assert_eq!(scores.percent(), 50.0);
        let [count, exists] = &report.kinds[..] else {
            panic!("two kinds");
        };
        assert_eq!((count.percent, count.balanced_percent), (50.0, None));
        assert_eq!(
            (count.majority_answer.as_str(), count.majority_percent),
            ("four", 50.0)
        );
        assert_eq!((exists.percent, exists.majority_percent), (50.0, 75.0));
        let balanced = exists.balanced_percent.expect("yes and no");
        assert!((balanced - 100.0 / 3.0).abs() < 1e-9, "{balanced}");
    }

    #[test]
    fn records_say_what_they_expect() {
        let fields = |json: &str| serde_json::from_str::<Map<String, Value>>(json).expect("JSON");
        let read = |json| Expected::from_fields(&fields(json));
        assert_eq!(
            read(r#"{"label": "ox", "group": "g"}"#),
            Some(label("ox", "g"))
        );
        assert_eq!(read(r#"{"label": "ox"}"#), Some(label("ox", "all")));
        assert_eq!(
            read(r#"{"type": "count", "answer": "two"}"#),
            Some(answer("count", "two"))
        );
        assert_eq!(read(r#"{"labels": ["ox"], "type": "count"}"#), None);
    }

    #[test]
    fn label_files_hold_names_or_objects() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("labels.json");
        std::fs::write(&path, r#"["ox", {"label": "dog", "group": "g"}, "Ox"]"#).expect("written");
        assert_eq!(Labels::from_file(&path).expect("labels").len(), 2);
        std::fs::write(&path, "{}").expect("written");
        let error = Labels::from_file(&path).expect_err("no array").to_string();
        assert!(
            error.contains("labels.json") && error.contains("array of labels"),
            "{error}"
        );
    }
}
