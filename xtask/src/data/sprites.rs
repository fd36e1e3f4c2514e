//! The vendors' pictures, kept as the compressed files they come as and decoded when drawn.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use image::RgbaImage;
use serde::Serialize;

use super::concepts::normal_hexcode;
use crate::packages;

/// Who drew a pictogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Vendor {
    Noto,
    Fluent,
    Twemoji,
}

impl Vendor {
    /// The vendors whose pictures are trained on; Twemoji's are only ever tested on.
    pub(crate) const TRAIN: [Vendor; 2] = [Vendor::Noto, Vendor::Fluent];
    pub(crate) const ALL: [Vendor; 3] = [Vendor::Noto, Vendor::Fluent, Vendor::Twemoji];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Vendor::Noto => "noto",
            Vendor::Fluent => "fluent",
            Vendor::Twemoji => "twemoji",
        }
    }

    /// The npm package that holds the vendor's pictures, and the folder and ending of its files.
    fn source(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Vendor::Noto => (
                "emoji-datasource-google@16.0.0",
                "package/img/google/64/",
                ".png",
            ),
            Vendor::Fluent => ("@lobehub/fluent-emoji-3d@1.1.0", "package/assets/", ".webp"),
            Vendor::Twemoji => (
                "emoji-datasource-twitter@16.0.0",
                "package/img/twitter/64/",
                ".png",
            ),
        }
    }
}

/// The pictures of the wanted concepts, by vendor and normalised hex code.
pub(crate) struct Sprites {
    files: HashMap<Vendor, HashMap<String, Vec<u8>>>,
}

impl Sprites {
    /// Reads every vendor's package for the pictures of `hexcodes`.
    pub(crate) fn read(hexcodes: &HashSet<&str>, cache: &Path) -> Result<Self> {
        let mut files = HashMap::new();
        for vendor in Vendor::ALL {
            let (spec, folder, ending) = vendor.source();
            let archive = packages::npm(spec, cache)?;
            let found = packages::files(&archive, |path| {
                let stem = path.strip_prefix(folder)?.strip_suffix(ending)?;
                Some(normal_hexcode(stem)).filter(|code| hexcodes.contains(code.as_str()))
            })?;
            files.insert(vendor, found.into_iter().collect());
        }
        Ok(Self { files })
    }

    /// Whether the vendor drew the concept.
    pub(crate) fn has(&self, vendor: Vendor, hexcode: &str) -> bool {
        self.files[&vendor].contains_key(hexcode)
    }

    /// The picture as the vendor drew it, with its transparency.
    pub(crate) fn picture(&self, vendor: Vendor, hexcode: &str) -> Result<RgbaImage> {
        let name = vendor.name();
        let bytes = self.files[&vendor]
            .get(hexcode)
            .with_context(|| format!("{name} has no picture of {hexcode}"))?;
        let picture = image::load_from_memory(bytes)
            .with_context(|| format!("decoding {name}'s picture of {hexcode}"))?;
        Ok(picture.into_rgba8())
    }
}
