//! The folder a data set is written to: built beside its place and moved there when complete.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ImageEncoder, RgbImage};
use serde::Serialize;

/// JPEG's scale of 1 to 100.
const QUALITY: u8 = 92;

/// How a picture is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Format {
    Png,
    Jpeg,
}

/// A data set's folder while it is being written.
pub(crate) struct Folder {
    out: PathBuf,
    partial: PathBuf,
}

impl Folder {
    /// Starts afresh beside `out`, which stays as it is until [`Folder::finish`].
    pub(crate) fn create(out: &Path) -> Result<Self> {
        let partial = beside(out, "partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("clearing {}", partial.display()))?;
        }
        fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
        Ok(Self {
            out: out.to_path_buf(),
            partial,
        })
    }

    /// Makes the folder of a set's pictures.
    pub(crate) fn add_set(&self, set: &str) -> Result<()> {
        let path = self.partial.join("images").join(set);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))
    }

    /// Stores a picture and returns its path from the data set's folder.
    pub(crate) fn picture(
        &self,
        set: &str,
        name: &str,
        picture: &RgbImage,
        format: Format,
    ) -> Result<String> {
        let ending = match format {
            Format::Png => "png",
            Format::Jpeg => "jpg",
        };
        let relative = format!("images/{set}/{name}.{ending}");
        let path = self.partial.join(&relative);
        let failed = || format!("writing {}", path.display());
        let file = BufWriter::new(File::create(&path).with_context(failed)?);
        let (width, height) = picture.dimensions();
        let colour = image::ExtendedColorType::Rgb8;
        match format {
            Format::Png => PngEncoder::new(file).write_image(picture, width, height, colour),
            Format::Jpeg => JpegEncoder::new_with_quality(file, QUALITY)
                .write_image(picture, width, height, colour),
        }
        .with_context(failed)?;
        Ok(relative)
    }

    pub(crate) fn json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        self.text(name, &(serde_json::to_string_pretty(value)? + "\n"))
    }

    pub(crate) fn text(&self, name: &str, text: &str) -> Result<()> {
        let path = self.partial.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Puts the complete folder in its place, and removes what was there.
    pub(crate) fn finish(self) -> Result<()> {
        let old = beside(&self.out, "old");
        if old.exists() {
            fs::remove_dir_all(&old).with_context(|| format!("clearing {}", old.display()))?;
        }
        if self.out.exists() {
            fs::rename(&self.out, &old)
                .with_context(|| format!("moving {} aside", self.out.display()))?;
        }
        fs::rename(&self.partial, &self.out)
            .with_context(|| format!("moving the data set to {}", self.out.display()))?;
        if old.exists() {
            fs::remove_dir_all(&old).with_context(|| format!("clearing {}", old.display()))?;
        }
        Ok(())
    }
}

fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(suffix);
    out.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_folder_replaces_the_one_before() -> Result<()> {
        let root = tempfile::tempdir()?;
        let out = root.path().join("set");
        for text in ["first", "second"] {
            let folder = Folder::create(&out)?;
            folder.text("a.txt", text)?;
            folder.finish()?;
            assert_eq!(fs::read_to_string(out.join("a.txt"))?, text);
        }
        assert_eq!(fs::read_dir(root.path())?.count(), 1);
        Ok(())
    }
}
