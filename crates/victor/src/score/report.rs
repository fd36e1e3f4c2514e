//! Scores as they are shown.

use serde::Serialize;
use std::collections::BTreeMap;

/// All scores of a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Of captions, where the set asks for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captions: Option<CaptionReport>,
    /// Of questions, where the set asks any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<QuestionReport>,
}

/// Scores of captions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaptionReport {
    /// Labels a caption is judged among.
    pub labels: usize,
    /// Captions judged.
    pub count: usize,
    /// Captions that hold their label and no other.
    pub hits: usize,
    /// The share of hits, in percent.
    pub percent: f64,
    /// Missed because another label reaches over the right one.
    pub overlapped: usize,
    /// Missed because another label is named as well.
    pub another: usize,
    /// Missed because the label is not named.
    pub absent: usize,
    /// The same for every group.
    pub groups: Vec<GroupReport>,
}

/// Scores of the captions of one group of labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupReport {
    /// The group.
    pub group: String,
    /// Captions judged.
    pub count: usize,
    /// Captions that hold their label and no other.
    pub hits: usize,
    /// The share of hits, in percent.
    pub percent: f64,
}

/// Scores of questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QuestionReport {
    /// Questions asked.
    pub count: usize,
    /// Right answers.
    pub correct: usize,
    /// The share of right answers, in percent.
    pub percent: f64,
    /// The same for every kind.
    pub kinds: Vec<KindReport>,
}

/// Scores of one kind of question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindReport {
    /// The kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// Questions asked.
    pub count: usize,
    /// Right answers.
    pub correct: usize,
    /// The share of right answers, in percent.
    pub percent: f64,
    /// The most frequent right answer in this set; of several, the first in the alphabet.
    pub majority_answer: String,
    /// What always giving that answer would score, in percent.
    pub majority_percent: f64,
    /// For yes/no questions, the mean of the shares among yes and among no, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balanced_percent: Option<f64>,
}

impl KindReport {
    pub(super) fn new(kind: &str, answers: &BTreeMap<String, (usize, usize)>) -> Self {
        let count = answers.values().map(|(_, all)| all).sum();
        let correct = answers.values().map(|(right, _)| right).sum();
        // The last of equals wins `max_by_key`, so the alphabet is walked from its end.
        let majority = answers.iter().rev().max_by_key(|(_, (_, all))| *all);
        let (majority_answer, most) = majority.map_or((String::new(), 0), |(answer, (_, all))| {
            (answer.clone(), *all)
        });
        let shares = answers.values().map(|(right, all)| percent(*right, *all));
        let yes_no = answers
            .keys()
            .all(|answer| answer == "yes" || answer == "no");
        Self {
            kind: kind.into(),
            count,
            correct,
            percent: percent(correct, count),
            majority_answer,
            majority_percent: percent(most, count),
            balanced_percent: yes_no.then(|| shares.sum::<f64>() / answers.len() as f64),
        }
    }
}

pub(super) fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    100.0 * part as f64 / whole as f64
}
