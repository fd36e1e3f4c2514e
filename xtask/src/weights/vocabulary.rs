//! A SentencePiece BPE vocabulary, and its head: the first merges and the characters they are made of.
//!
//! Llama's order is assumed: three specials, 256 bytes, the merges by rank, single characters.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, ensure};

/// `<unk>`, `<s>`, `</s>` and the 256 bytes, which are never merged.
const RESERVED: usize = 3 + 256;

/// Pieces in the order of their ids, with their scores: the higher, the earlier they are merged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Vocabulary {
    pieces: Vec<String>,
    scores: Vec<f32>,
}

impl Vocabulary {
    /// Adds a piece with the next id.
    pub(super) fn push(&mut self, piece: String, score: f32) {
        self.pieces.push(piece);
        self.scores.push(score);
    }

    /// The pieces in the order of their ids.
    pub(super) fn pieces(&self) -> &[String] {
        &self.pieces
    }

    /// The pieces of these ids, numbered anew in the order given.
    pub(super) fn select(&self, ids: &[usize]) -> Self {
        let mut selected = Self::default();
        for &id in ids {
            selected.push(self.pieces[id].clone(), self.scores[id]);
        }
        selected
    }

    /// The ids, ascending, of the at most `size` pieces to keep: specials and bytes, printable ASCII, as
    /// many merges in the order of their ids as fit with the characters in them, and where room is left
    /// over, more characters. A text is then merged as before up to the first merge that is gone.
    ///
    /// # Errors
    /// When `size` has no room for a merge, or a kept piece cannot be merged from two kept ones.
    pub(super) fn head(&self, size: usize) -> Result<Vec<usize>> {
        let (characters, merges): (Vec<usize>, Vec<usize>) =
            (RESERVED..self.pieces.len()).partition(|&id| is_character(&self.pieces[id]));
        let of_character: HashMap<&str, usize> = characters
            .iter()
            .map(|&id| (self.pieces[id].as_str(), id))
            .collect();
        let id_of = |character: char| {
            of_character
                .get(character.encode_utf8(&mut [0; 4]) as &str)
                .copied()
        };

        let mut kept: BTreeSet<usize> = (0..RESERVED).collect();
        kept.extend(('!'..='~').chain(['\u{2581}']).filter_map(id_of));
        let mut count = 0;
        for id in merges {
            let mut grown: BTreeSet<usize> = self.pieces[id].chars().filter_map(id_of).collect();
            grown.insert(id);
            let new = grown.difference(&kept).count();
            if kept.len() + new > size {
                break;
            }
            kept.append(&mut grown);
            count += 1;
        }
        ensure!(count > 0, "a vocabulary of {size} has no room for merges");
        for id in characters {
            if kept.len() < size {
                kept.insert(id);
            }
        }

        let kept: Vec<usize> = kept.into_iter().collect();
        self.select(&kept).check_closed()?;
        Ok(kept)
    }

    /// The merges of a Hugging Face BPE, first to last: every way to split a piece into two pieces, by the
    /// piece's score, as transformers' `SentencePieceExtractor` lists them.
    pub(super) fn merges(&self) -> Vec<[&str; 2]> {
        let ids = self.ids();
        let mut ranked: Vec<usize> = (RESERVED..self.pieces.len()).collect();
        ranked.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]));
        ranked
            .into_iter()
            .flat_map(|id| splits(&self.pieces[id], &ids))
            .collect()
    }

    fn check_closed(&self) -> Result<()> {
        let ids = self.ids();
        for piece in &self.pieces[RESERVED..] {
            ensure!(
                is_character(piece) || !splits(piece, &ids).is_empty(),
                "no two pieces kept make {piece:?}"
            );
        }
        Ok(())
    }

    /// Ids of what can be part of a merge.
    fn ids(&self) -> HashMap<&str, usize> {
        let mergeable = self.pieces.iter().enumerate().skip(RESERVED);
        mergeable.map(|(id, piece)| (piece.as_str(), id)).collect()
    }
}

fn is_character(piece: &str) -> bool {
    piece.chars().count() == 1
}

/// The pairs of pieces that make `piece`, in the order of their ids.
fn splits<'a>(piece: &'a str, ids: &HashMap<&str, usize>) -> Vec<[&'a str; 2]> {
    let mut found: Vec<_> = piece
        .char_indices()
        .skip(1)
        .filter_map(|(at, _)| {
            let (left, right) = piece.split_at(at);
            Some(((*ids.get(left)?, *ids.get(right)?), [left, right]))
        })
        .collect();
    found.sort_unstable_by_key(|&(ids, _)| ids);
    found.into_iter().map(|(_, pair)| pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Specials and bytes, four merges, then their five characters and a rarer one.
    fn tiny() -> Vocabulary {
        let mut vocabulary = Vocabulary::default();
        for id in 0..RESERVED {
            vocabulary.push(format!("<{id}>"), 0.0);
        }
        let pieces = [
            "in", "th", "the", "\u{e9}t", "t", "h", "e", "i", "n", "\u{e9}", "\u{e0}",
        ];
        for (rank, piece) in pieces.into_iter().enumerate() {
            vocabulary.push(piece.to_owned(), -(rank as f32));
        }
        vocabulary
    }

    fn kept(size: usize) -> Result<Vec<String>> {
        let vocabulary = tiny();
        let ids = vocabulary.head(size)?;
        assert!(ids.len() <= size);
        Ok(vocabulary.select(&ids).pieces[RESERVED..].to_vec())
    }

    #[test]
    fn a_head_is_closed_under_merging() -> Result<()> {
        let letters = ["t", "h", "e", "i", "n"];
        assert_eq!(kept(RESERVED + 7)?, [&["in", "th"][..], &letters].concat());
        // The fourth merge needs a character of its own, for which there is no room; a rarer one fits.
        assert_eq!(
            kept(RESERVED + 9)?,
            [&["in", "th", "the"][..], &letters, &["\u{e9}"]].concat()
        );
        assert_eq!(kept(RESERVED + 100)?, tiny().pieces[RESERVED..]);
        assert!(kept(RESERVED + 5).is_err());
        Ok(())
    }

    #[test]
    fn a_piece_that_cannot_be_merged_is_refused() {
        let mut vocabulary = tiny();
        vocabulary.push("xyz".to_owned(), -20.0);
        assert!(vocabulary.head(RESERVED + 100).is_err());
    }

    #[test]
    fn merges_follow_the_scores_and_then_the_ids() {
        let vocabulary = tiny();
        let expected = [["i", "n"], ["t", "h"], ["th", "e"], ["\u{e9}", "t"]];
        assert_eq!(vocabulary.merges(), expected);
    }
}
