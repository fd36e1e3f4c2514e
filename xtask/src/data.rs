//! `cargo xtask data`: data sets in the LLaVA record format, built from public packages.

mod background;
mod concepts;
mod conversation;
mod licences;
mod photos;
mod pictograms;
mod render;
mod scenes;
mod singles;
mod sprites;
mod writer;

use anyhow::Result;
use clap::Subcommand;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[derive(Subcommand)]
pub(crate) enum Data {
    /// Pictograms of four sources with captions and questions: train on two vendors, test on a third.
    Pictograms(pictograms::Options),
}

impl Data {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Data::Pictograms(options) => pictograms::run(&options),
        }
    }
}

/// A random stream of its own for the `index`-th item of `set`, so that items can be made in any
/// order, and on any number of threads, with the same result.
fn item_rng(seed: u64, set: &str, index: usize) -> ChaCha8Rng {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = seed
        .to_le_bytes()
        .into_iter()
        .chain(set.bytes())
        .chain((index as u64).to_le_bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    ChaCha8Rng::seed_from_u64(hash)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn items_draw_from_streams_of_their_own() {
        let draw = |seed, set, index| item_rng(seed, set, index).random::<u64>();
        assert_eq!(draw(1, "a", 0), draw(1, "a", 0));
        assert_ne!(draw(1, "a", 0), draw(1, "a", 1));
        assert_ne!(draw(1, "a", 0), draw(1, "b", 0));
        assert_ne!(draw(1, "a", 0), draw(2, "a", 0));
    }
}
