//! From conversation records to samples.

use crate::{DataSource, Sample, TrainError};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use victor_data::{ChatTemplate, ConversationSet, Record, Tokenizer};

/// All samples of some sources.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) samples: Vec<Sample>,
    /// The samples of each source, and its weight.
    pub(crate) sources: Vec<(Range<usize>, f64)>,
    pub(crate) records: usize,
    pub(crate) skipped: usize,
}

/// Every picture once, by number.
#[derive(Debug, Default)]
pub(crate) struct PictureTable {
    pub(crate) paths: Vec<PathBuf>,
    numbers: HashMap<PathBuf, u32>,
}

/// How records become samples.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: ChatTemplate,
    pub(crate) marker: u32,
    pub(crate) visual_tokens: usize,
    pub(crate) registers: usize,
    pub(crate) vocab_size: usize,
    pub(crate) max_length: usize,
    pub(crate) skip_bad: bool,
}

impl Reader {
    /// Reads all sources, at most `limit` samples of them.
    pub(crate) fn read(
        &self,
        sources: &[DataSource],
        limit: usize,
        pictures: &mut PictureTable,
    ) -> Result<Corpus, TrainError> {
        let mut corpus = Corpus::default();
        for source in sources {
            let parent = source.json.parent().unwrap_or(Path::new(""));
            let images = source.images.as_deref().unwrap_or(parent);
            let set = ConversationSet::load(&source.json, images, self.skip_bad)?;
            let start = corpus.samples.len();
            corpus.records += set.len() + set.skipped().len();
            corpus.skipped += set.skipped().len();
            for record in set.records() {
                if corpus.samples.len() == limit {
                    break;
                }
                match self.sample(record, &source.json, pictures) {
                    Ok(sample) => corpus.samples.push(sample),
                    Err(_) if self.skip_bad => corpus.skipped += 1,
                    Err(error) => return Err(error),
                }
            }
            corpus
                .sources
                .push((start..corpus.samples.len(), source.weight));
        }
        Ok(corpus)
    }

    fn sample(
        &self,
        record: &Record,
        file: &Path,
        pictures: &mut PictureTable,
    ) -> Result<Sample, TrainError> {
        let (text, answers) = self.template.render_with_answer_spans(&record.messages())?;
        let special = self.tokenizer.wants_special_tokens(&text);
        let (ids, learned) =
            self.tokenizer
                .encode_with_images_and_spans(&text, special, self.marker, &answers)?;
        let sample = Sample {
            ids,
            learned,
            images: record
                .images
                .iter()
                .map(|path| pictures.number(path))
                .collect(),
        };
        // Fails here and not in the middle of the run.
        sample.sequence(self.marker, self.visual_tokens)?;
        if let Some(token) = sample
            .ids
            .iter()
            .find(|id| **id != self.marker && **id as usize >= self.vocab_size)
        {
            return Err(TrainError::TokenBeyondVocabulary {
                path: file.into(),
                id: record.id.clone(),
                token: *token,
                rows: self.vocab_size,
            });
        }
        let length = sample.rows(self.visual_tokens, self.registers);
        if length > self.max_length {
            return Err(TrainError::TooLong {
                path: file.into(),
                id: record.id.clone(),
                length,
                limit: self.max_length,
            });
        }
        if !sample.learned.contains(&true) {
            return Err(TrainError::NoAnswer {
                path: file.into(),
                id: record.id.clone(),
            });
        }
        Ok(sample)
    }
}

impl Corpus {
    /// Leaves out the samples that show a picture for which `bad` says so.
    pub(crate) fn without(&mut self, bad: impl Fn(u32) -> bool) {
        let mut kept = Vec::with_capacity(self.samples.len());
        for (range, _) in &mut self.sources {
            let start = kept.len();
            for sample in &self.samples[range.clone()] {
                if sample.images.iter().any(|image| bad(*image)) {
                    self.skipped += 1;
                } else {
                    kept.push(sample.clone());
                }
            }
            *range = start..kept.len();
        }
        self.samples = kept;
    }

    /// The first picture of every sample, out of the table's, with a number that stands for the first
    /// thing said about it.
    pub(crate) fn captioned<'a>(&self, table: &'a [PathBuf]) -> Vec<(&'a Path, usize)> {
        let mut numbers = HashMap::new();
        let mut captioned = Vec::new();
        for sample in &self.samples {
            let tokens = sample.ids.iter().zip(&sample.learned);
            let answer: Vec<u32> = tokens
                .skip_while(|(_, learned)| !**learned)
                .take_while(|(_, learned)| **learned)
                .map(|(id, _)| *id)
                .collect();
            if let Some(picture) = sample.images.first() {
                let next = numbers.len();
                let number = *numbers.entry(answer).or_insert(next);
                captioned.push((table[*picture as usize].as_path(), number));
            }
        }
        captioned
    }
}

impl PictureTable {
    fn number(&mut self, path: &Path) -> u32 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.paths.len() as u32;
        self.paths.push(path.to_owned());
        self.numbers.insert(path.to_owned(), number);
        number
    }
}
