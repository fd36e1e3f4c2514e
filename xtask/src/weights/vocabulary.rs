//! A SentencePiece BPE vocabulary, and its cut to the pieces that matter and those they are merged from.
//!
//! Llama's order is assumed: three specials, 256 bytes, the merges by rank, single characters.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, ensure};

/// `<unk>`, `<s>`, `</s>` and the 256 bytes, which are never merged.
const RESERVED: usize = 3 + 256;

/// What a piece has for a space.
const SPACE: &str = "\u{2581}";

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

    /// The ids, ascending, of the at most `size` pieces to keep: specials and bytes, printable ASCII, then
    /// pieces from the highest `evidence` down, each with all that it is merged from; one for which there
    /// is no room is passed over. A text that is made of kept pieces is then cut into them as before.
    ///
    /// # Errors
    /// When `size` has no room for a merge, or merging never leads to a piece.
    pub(super) fn cut(&self, evidence: &[f32], size: usize) -> Result<Vec<usize>> {
        ensure!(
            evidence.len() == self.pieces.len(),
            "evidence for {} pieces, of {}",
            evidence.len(),
            self.pieces.len()
        );
        let ids = self.ids();
        let mergeable = RESERVED..self.pieces.len();
        let mut kept: BTreeSet<usize> = (0..RESERVED).collect();
        kept.extend(mergeable.clone().filter(|&id| is_basic(&self.pieces[id])));
        ensure!(
            kept.len() < size,
            "a vocabulary of {size} has no room for merges"
        );

        let mut ranked: Vec<usize> = mergeable.collect();
        ranked.sort_by(|&a, &b| evidence[b].total_cmp(&evidence[a]));
        for id in ranked {
            let mut path = self.path(id, &ids)?;
            if kept.union(&path).count() <= size {
                kept.append(&mut path);
            }
        }
        Ok(kept.into_iter().collect())
    }

    /// What merging goes through, from its characters, until it has made a piece: that piece too.
    fn path(&self, id: usize, ids: &HashMap<&str, usize>) -> Result<BTreeSet<usize>> {
        let piece = self.pieces[id].as_str();
        let id_of = |from: usize, to: usize| ids.get(&piece[from..to]).copied();
        let starts = piece.char_indices().map(|(at, _)| at);
        let mut bounds: Vec<usize> = starts.chain([piece.len()]).collect();
        let characters = bounds.windows(2).filter_map(|span| id_of(span[0], span[1]));
        let mut path: BTreeSet<usize> = characters.collect();

        while let Some((bound, merged)) = bounds
            .windows(3)
            .zip(1..)
            .filter_map(|(span, bound)| Some((bound, id_of(span[0], span[2])?)))
            // The first of the best, as in SentencePiece.
            .min_by(|(_, a), (_, b)| self.scores[*b].total_cmp(&self.scores[*a]))
        {
            bounds.remove(bound);
            path.insert(merged);
        }
        ensure!(path.contains(&id), "merging never leads to {piece:?}");
        Ok(path)
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

    /// Ids of what can be part of a merge.
    fn ids(&self) -> HashMap<&str, usize> {
        let mergeable = self.pieces.iter().enumerate().skip(RESERVED);
        mergeable.map(|(id, piece)| (piece.as_str(), id)).collect()
    }
}

/// Whether it is a space or one character of printable ASCII.
fn is_basic(piece: &str) -> bool {
    piece == SPACE || matches!(piece.as_bytes(), [b'!'..=b'~'])
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

    const PIECES: [&str; 11] = [
        "in", "th", "the", "\u{e9}t", "t", "h", "e", "i", "n", "\u{e9}", "\u{e0}",
    ];

    /// Specials and bytes, four merges, then their six characters and another.
    fn tiny() -> Vocabulary {
        let mut vocabulary = Vocabulary::default();
        for id in 0..RESERVED {
            vocabulary.push(format!("<{id}>"), 0.0);
        }
        for (rank, piece) in PIECES.into_iter().enumerate() {
            vocabulary.push(piece.to_owned(), -(rank as f32));
        }
        vocabulary
    }

    /// What is kept beside the reserved pieces when these are known, the best known first.
    fn kept(known: &[&str], count: usize) -> Result<Vec<String>> {
        let vocabulary = tiny();
        let evidence: Vec<f32> = vocabulary
            .pieces()
            .iter()
            .map(|piece| known.iter().rev().position(|known| known == piece))
            .map(|place| place.map_or(0.0, |place| 1.0 + place as f32))
            .collect();
        let ids = vocabulary.cut(&evidence, RESERVED + count)?;
        assert!(ids.len() <= RESERVED + count);
        Ok(vocabulary.select(&ids).pieces[RESERVED..].to_vec())
    }

    #[test]
    fn a_cut_is_closed_under_merging() -> Result<()> {
        let letters = ["t", "h", "e", "i", "n"];
        // Not the earlier "in", but what leads to "the", in the order of the ids.
        assert_eq!(kept(&["the"], 7)?, [&["th", "the"][..], &letters].concat());
        assert_eq!(kept(&[], 100)?, PIECES);
        Ok(())
    }

    #[test]
    fn a_cut_takes_the_best_known_first() -> Result<()> {
        let letters = ["t", "h", "e", "i", "n"];
        assert_eq!(kept(&["in", "the"], 6)?, [&["in"][..], &letters].concat());
        // There is no room for "the" with what leads to it, but there is for a character.
        assert_eq!(
            kept(&["in", "the", "\u{e0}"], 7)?,
            [&["in"][..], &letters, &["\u{e0}"]].concat()
        );
        assert_eq!(
            kept(&["\u{e9}t", "in"], 7)?,
            [&["\u{e9}t"][..], &letters, &["\u{e9}"]].concat()
        );
        assert!(kept(&["in"], 5).is_err());
        Ok(())
    }

    #[test]
    fn a_path_follows_the_scores() -> Result<()> {
        let mut vocabulary = tiny();
        vocabulary.push("hin".to_owned(), -20.0);
        vocabulary.push("thin".to_owned(), -21.0);
        let ids = vocabulary.ids();
        let path = vocabulary.path(ids["thin"], &ids)?;
        let pieces = path.into_iter().map(|id| vocabulary.pieces[id].as_str());
        // "th" and "in" are merged before "hin" could be.
        let expected = ["in", "th", "t", "h", "i", "n", "thin"];
        assert_eq!(pieces.collect::<Vec<_>>(), expected);
        assert!(vocabulary.path(ids["hin"], &ids).is_ok());
        Ok(())
    }

    #[test]
    fn a_piece_that_merging_never_makes_is_refused() {
        let mut vocabulary = tiny();
        vocabulary.push("xyz".to_owned(), -20.0);
        let evidence = vec![0.0; vocabulary.pieces.len()];
        assert!(vocabulary.cut(&evidence, RESERVED + 100).is_err());
    }

    #[test]
    fn merges_follow_the_scores_and_then_the_ids() {
        let vocabulary = tiny();
        let expected = [["i", "n"], ["t", "h"], ["th", "e"], ["\u{e9}", "t"]];
        assert_eq!(vocabulary.merges(), expected);
    }
}
