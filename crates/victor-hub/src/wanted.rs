//! Which files of a repository are fetched.

use std::collections::BTreeSet;

/// What a snapshot must hold. Only files at the top of the repository are meant, except for those
/// named one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// What a model is opened from: [`Wanted::Configs`] and weights. Of the formats of one set of
    /// weights only the first is taken: safetensors, single or sharded, else PyTorch's, single or
    /// sharded. Adapters and projectors (`adapter_model`, `non_lora_trainables`, `mm_projector`) come
    /// too. Optimizer states, other frameworks' weights and GGUF files do not.
    Model,
    /// Configurations, tokenizer, chat template and processor, as far as there are any.
    Configs,
    /// These files, by their names in the repository. Each must exist.
    Files(Vec<String>),
}

/// Small files. Each is taken where it exists.
const CONFIGS: [&str; 15] = [
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "image_processor_config.json",
];

/// Sets of weights that stand for each other, the preferred one first: stem and ending.
const WEIGHTS: [(&str, &str); 2] = [("model", ".safetensors"), ("pytorch_model", ".bin")];

/// Weights beside a base: of each line the first that exists is taken.
const PARTS: [&[&str]; 3] = [
    &["adapter_model.safetensors", "adapter_model.bin"],
    &["non_lora_trainables.safetensors", "non_lora_trainables.bin"],
    &["mm_projector.safetensors", "mm_projector.bin"],
];

/// Where the names of the weight files stand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// They are these.
    Files(Vec<String>),
    /// They are in this index, and these come too.
    Indexed(String, Vec<String>),
}

impl Wanted {
    /// What is fetched first. An index of shards is among it, because it names what comes next.
    pub(crate) fn first(&self, names: &BTreeSet<String>) -> Vec<String> {
        let mut first = match self {
            Self::Files(files) => return files.clone(),
            Self::Model | Self::Configs => existing(&CONFIGS, names),
        };
        if let Weights::Indexed(index, _) = self.weights(names) {
            first.push(index);
        }
        first
    }

    /// What is fetched second, so that weights in a snapshot mean that the rest is there.
    pub(crate) fn weights(&self, names: &BTreeSet<String>) -> Weights {
        if *self != Self::Model {
            return Weights::Files(Vec::new());
        }
        let parts = PARTS
            .iter()
            .filter_map(|line| existing(line, names).into_iter().next());
        let parts: Vec<String> = parts.collect();
        for (stem, ending) in WEIGHTS {
            let single = format!("{stem}{ending}");
            let index = format!("{single}.index.json");
            let shards = names.iter().filter(|name| is_shard(name, stem, ending));
            let mut files: Vec<String> = shards.cloned().collect();
            if names.contains(&single) {
                files = vec![single];
            } else if names.contains(&index) {
                return Weights::Indexed(index, parts);
            }
            if !files.is_empty() {
                files.extend(parts);
                return Weights::Files(files);
            }
        }
        Weights::Files(parts)
    }

    /// What must be missing where a folder's own files are all that is known of a commit: a snapshot
    /// without a configuration or, for a model, without weights is one whose download was cut.
    pub(crate) fn essential(&self, names: &BTreeSet<String>) -> Vec<String> {
        let mut missing = Vec::new();
        if matches!(self, Self::Files(_)) {
            return missing;
        }
        if existing(&["config.json", "adapter_config.json"], names).is_empty() {
            missing.push("config.json".to_owned());
        }
        if *self == Self::Model && self.weights(names) == Weights::Files(Vec::new()) {
            missing.push("model.safetensors".to_owned());
        }
        missing
    }
}

fn existing(of: &[&str], names: &BTreeSet<String>) -> Vec<String> {
    let there = of.iter().filter(|name| names.contains(**name));
    there.map(|name| (*name).to_owned()).collect()
}

/// `STEM-00001-of-00002ENDING`, with any number of digits.
fn is_shard(name: &str, stem: &str, ending: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(ending))
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(shard, of)| number(shard) && number(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn files(wanted: &[&str]) -> Weights {
        Weights::Files(wanted.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn only_what_a_model_is_opened_from() {
        let all = names(&[
            ".gitattributes",
            "README.md",
            "config.json",
            "flax_model.msgpack",
            "model.safetensors",
            "onnx/model.onnx",
            "optimizer.pt",
            "pytorch_model.bin",
            "tf_model.h5",
            "tokenizer.json",
            "model.fp16.safetensors",
            "m-Q4_K_M.gguf",
            "training_args.bin",
            "sub/config.json",
            "consolidated.safetensors",
            "rng_state.pth",
        ]);
        assert_eq!(Wanted::Model.first(&all), ["config.json", "tokenizer.json"]);
        assert_eq!(Wanted::Model.weights(&all), files(&["model.safetensors"]));
        assert_eq!(
            Wanted::Configs.first(&all),
            ["config.json", "tokenizer.json"]
        );
        assert_eq!(Wanted::Configs.weights(&all), files(&[]));
        let one = Wanted::Files(vec!["m-Q4_K_M.gguf".to_owned()]);
        assert_eq!(one.first(&all), ["m-Q4_K_M.gguf"]);
        assert_eq!(one.weights(&all), files(&[]));
    }

    #[test]
    fn an_index_names_the_shards() {
        let shards = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        let index = "model.safetensors.index.json";
        let all = names(&[
            "config.json",
            index,
            shards[0],
            shards[1],
            "pytorch_model.bin",
        ]);
        assert_eq!(Wanted::Model.first(&all), ["config.json", index]);
        assert_eq!(
            Wanted::Model.weights(&all),
            Weights::Indexed(index.to_owned(), vec![])
        );
        let without = names(&["config.json", shards[0], shards[1], "pytorch_model.bin"]);
        assert_eq!(Wanted::Model.weights(&without), files(&shards));
        let single = names(&["model.safetensors", index, shards[0]]);
        assert_eq!(
            Wanted::Model.weights(&single),
            files(&["model.safetensors"])
        );
    }

    #[test]
    fn original_llava_layouts() {
        let index = "pytorch_model.bin.index.json";
        let all = names(&["config.json", "tokenizer.model", index, "mm_projector.bin"]);
        let parts = vec!["mm_projector.bin".to_owned()];
        assert_eq!(
            Wanted::Model.weights(&all),
            Weights::Indexed(index.to_owned(), parts)
        );
        let lora = names(&[
            "adapter_config.json",
            "adapter_model.bin",
            "adapter_model.safetensors",
            "non_lora_trainables.bin",
        ]);
        assert_eq!(Wanted::Model.first(&lora), ["adapter_config.json"]);
        let expected = files(&["adapter_model.safetensors", "non_lora_trainables.bin"]);
        assert_eq!(Wanted::Model.weights(&lora), expected);
        assert_eq!(Wanted::Model.weights(&names(&["m.gguf"])), files(&[]));
    }
}
