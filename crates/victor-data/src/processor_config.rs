//! Reads an image processor from the JSON that transformers writes, in its several spellings.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::processor::{ImageProcessor, ResizeTo, Size};
use crate::{DataError, Filter};

const OPENAI_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const OPENAI_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// What LLaVA-NeXT's processor fits pictures into where its file says nothing, `[height, width]`.
const NEXT_PINPOINTS: [[u32; 2]; 5] =
    [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]];

impl ImageProcessor {
    /// CLIP's: the shortest side to `side` pixels, the centre cut out, OpenAI's means.
    pub fn clip(side: u32) -> Self {
        Self {
            pad_to_square: false,
            resize: Some(ResizeTo::ShortestEdge(side)),
            filter: Filter::Bicubic,
            center_crop: Some(Size::square(side)),
            rescale_factor: Some(1.0 / 255.0),
            mean: OPENAI_MEAN,
            std: OPENAI_STD,
            do_normalize: true,
            image_grid_pinpoints: Vec::new(),
        }
    }

    /// SigLIP's: to `side` pixels both ways, without a crop; means and deviations are a half.
    pub fn siglip(side: u32) -> Self {
        Self {
            resize: Some(ResizeTo::Exact(Size::square(side))),
            center_crop: None,
            mean: [0.5; 3],
            std: [0.5; 3],
            ..Self::clip(side)
        }
    }

    /// Reads `processor_config.json`'s `image_processor`, or else `preprocessor_config.json`.
    ///
    /// Where neither is in `dir`, they are looked for in the directory that `config.json` names as `mm_vision_tower`, as
    /// in the original LLaVA's layout. `image_aspect_ratio: "pad"` counts wherever it stands, in the processor's file
    /// before `config.json`.
    ///
    /// # Errors
    /// If there is no such file, it is not JSON, or a setting is not one that is computed.
    pub fn from_dir(dir: &Path) -> Result<Self, DataError> {
        let model: ModelConfig =
            read_json_if_there(&dir.join("config.json"), "a model")?.unwrap_or_default();
        let tower = model.mm_vision_tower.as_ref().map(|name| dir.join(name));
        for place in std::iter::once(dir.to_owned()).chain(tower) {
            if let Some((path, mut raw)) = find(&place)? {
                if raw.image_aspect_ratio.is_none() {
                    raw.image_aspect_ratio = model.image_aspect_ratio;
                }
                return raw.into_processor(&path);
            }
        }
        Err(DataError::NoSuchFile {
            path: dir.join("preprocessor_config.json"),
            expected: "the image processor's settings (`processor_config.json` with an `image_processor`, or \
                       `preprocessor_config.json`); copy it from the checkpoint's page",
        })
    }
}

fn find(dir: &Path) -> Result<Option<(PathBuf, RawProcessor)>, DataError> {
    let path = dir.join("processor_config.json");
    if let Some(outer) = read_json_if_there::<ProcessorFile>(&path, "a processor")?
        && let Some(raw) = outer.image_processor
    {
        return Ok(Some((path, raw)));
    }
    let path = dir.join("preprocessor_config.json");
    let raw = read_json_if_there(&path, "an image processor")?;
    Ok(raw.map(|raw| (path, raw)))
}

/// Parses a JSON file; `None` if there is none.
pub(crate) fn read_json_if_there<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
) -> Result<Option<T>, DataError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(DataError::ReadFile {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|source| DataError::ParseJson {
            path: path.to_owned(),
            expected,
            source,
        })
}

#[derive(Default, Deserialize)]
struct ModelConfig {
    image_aspect_ratio: Option<String>,
    mm_vision_tower: Option<String>,
}

#[derive(Deserialize)]
struct ProcessorFile {
    image_processor: Option<RawProcessor>,
}

/// The settings as they stand in the file; every one may be missing.
#[derive(Deserialize)]
struct RawProcessor {
    #[serde(alias = "feature_extractor_type")]
    image_processor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Value>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    do_pad: Option<bool>,
    image_aspect_ratio: Option<String>,
    image_grid_pinpoints: Option<Vec<[u32; 2]>>,
}

impl RawProcessor {
    fn into_processor(self, path: &Path) -> Result<ImageProcessor, DataError> {
        let bad = |field, found: String, expected| DataError::ProcessorField {
            path: path.to_owned(),
            field,
            found,
            expected,
        };
        let kind = self.image_processor_type.as_deref().unwrap_or("");
        let is_siglip = kind.starts_with("Siglip");
        let is_next = kind.starts_with("LlavaNext");

        let filter = match self.resample {
            Some(2) => Filter::Bilinear,
            Some(3) | None => Filter::Bicubic,
            Some(other) => {
                return Err(bad(
                    "resample",
                    other.to_string(),
                    "2 (bilinear) or 3 (bicubic)",
                ));
            }
        };
        let side = if is_siglip { 224 } else { 336 };
        let resize = if self.do_resize.unwrap_or(true) {
            let size = self.size.unwrap_or_else(|| Value::from(side));
            Some(read_resize(&size, is_siglip).ok_or_else(|| {
                bad(
                    "size",
                    size.to_string(),
                    "a number, {shortest_edge} or {height, width}, at least 1",
                )
            })?)
        } else {
            None
        };
        let center_crop = match (self.do_center_crop.unwrap_or(!is_siglip), self.crop_size) {
            (false, _) => None,
            (true, None) => match resize {
                Some(ResizeTo::Exact(size)) => Some(size),
                Some(ResizeTo::ShortestEdge(edge)) => Some(Size::square(edge)),
                None => Some(Size::square(side)),
            },
            (true, Some(crop)) => Some(read_size(&crop).ok_or_else(|| {
                bad(
                    "crop_size",
                    crop.to_string(),
                    "a number or {height, width}, at least 1",
                )
            })?),
        };
        let mean = self
            .image_mean
            .unwrap_or(if is_siglip { [0.5; 3] } else { OPENAI_MEAN });
        let std = self
            .image_std
            .unwrap_or(if is_siglip { [0.5; 3] } else { OPENAI_STD });
        if std.iter().any(|&std| !std.is_finite() || std <= 0.0) {
            return Err(bad(
                "image_std",
                format!("{std:?}"),
                "three positive numbers",
            ));
        }
        // In LLaVA-NeXT `do_pad` makes batches of tiles even; in LLaVA's own processor it squares the picture.
        let pads = match self.image_aspect_ratio.as_deref() {
            Some(ratio) => ratio == "pad",
            None => self.do_pad.unwrap_or(false) && kind.starts_with("LlavaImageProcessor"),
        };

        let processor = ImageProcessor {
            pad_to_square: pads && !is_next,
            resize,
            filter,
            center_crop,
            rescale_factor: self
                .do_rescale
                .unwrap_or(true)
                .then(|| self.rescale_factor.unwrap_or(1.0 / 255.0)),
            mean,
            std,
            do_normalize: self.do_normalize.unwrap_or(true),
            image_grid_pinpoints: self.image_grid_pinpoints.unwrap_or_else(|| {
                if is_next {
                    NEXT_PINPOINTS.into()
                } else {
                    Vec::new()
                }
            }),
        };
        if processor.fixed_size().is_none() {
            return Err(bad(
                "do_center_crop",
                "false".to_owned(),
                "true, or a `size` with height and width: the tower takes pictures of one size",
            ));
        }
        Ok(processor)
    }
}

fn read_resize(size: &Value, number_is_square: bool) -> Option<ResizeTo> {
    if let Some(edge) = size.get("shortest_edge") {
        return side(edge).map(ResizeTo::ShortestEdge);
    }
    if size.is_number() && !number_is_square {
        return side(size).map(ResizeTo::ShortestEdge);
    }
    read_size(size).map(ResizeTo::Exact)
}

fn read_size(size: &Value) -> Option<Size> {
    if size.is_number() {
        return side(size).map(Size::square);
    }
    // Some checkpoints write a crop as the shortest edge of a square.
    if let Some(edge) = size.get("shortest_edge") {
        return side(edge).map(Size::square);
    }
    Some(Size {
        height: side(size.get("height")?)?,
        width: side(size.get("width")?)?,
    })
}

/// A picture's side in pixels; bounded, so that a slip in a file is no request for gigabytes.
fn side(value: &Value) -> Option<u32> {
    let side = u32::try_from(value.as_u64()?).ok()?;
    (1..=8192).contains(&side).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<ImageProcessor, DataError> {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("created");
            std::fs::write(path, text).expect("written");
        }
        ImageProcessor::from_dir(dir.path())
    }

    fn preprocessor(text: &str) -> Result<ImageProcessor, DataError> {
        load(&[("preprocessor_config.json", text)])
    }

    #[test]
    fn old_and_new_spellings_of_clip_agree() -> Result<(), DataError> {
        let old = preprocessor(
            r#"{"crop_size": 336, "do_center_crop": true, "do_normalize": true, "do_resize": true,
                "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 336}"#,
        )?;
        let new = preprocessor(
            r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336},
                "crop_size": {"height": 336, "width": 336}, "do_rescale": true, "rescale_factor": 0.00392156862745098}"#,
        )?;
        let nested = load(&[
            (
                "processor_config.json",
                r#"{"image_processor": {"size": {"shortest_edge": 336}}}"#,
            ),
            ("preprocessor_config.json", r#"{"size": 14}"#),
        ])?;
        assert_eq!(old, new);
        assert_eq!(old, nested);
        assert_eq!(old.output_size(), (336, 336));
        Ok(())
    }

    #[test]
    fn siglip_is_squashed_without_a_crop() -> Result<(), DataError> {
        let processor = preprocessor(
            r#"{"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 382}, "resample": 2}"#,
        )?;
        assert_eq!(processor.output_size(), (384, 382));
        assert_eq!((processor.center_crop, processor.mean), (None, [0.5; 3]));
        assert_eq!(processor.filter, Filter::Bilinear);
        Ok(())
    }

    #[test]
    fn padding_is_asked_for_in_three_places() -> Result<(), DataError> {
        let size = r#""size": {"shortest_edge": 56}"#;
        let pads = [
            load(&[(
                "preprocessor_config.json",
                &format!(r#"{{{size}, "image_aspect_ratio": "pad"}}"#),
            )])?,
            load(&[(
                "preprocessor_config.json",
                &format!(
                    r#"{{{size}, "do_pad": true, "image_processor_type": "LlavaImageProcessor"}}"#
                ),
            )])?,
            load(&[
                (
                    "config.json",
                    r#"{"image_aspect_ratio": "pad", "mm_vision_tower": "tower"}"#,
                ),
                ("tower/preprocessor_config.json", &format!("{{{size}}}")),
            ])?,
        ];
        assert!(pads.iter().all(|processor| processor.pad_to_square));
        assert!(!preprocessor(&format!("{{{size}}}"))?.pad_to_square);
        Ok(())
    }

    #[test]
    fn settings_that_are_not_computed_are_named() {
        for (text, field) in [
            (r#"{"resample": 1}"#, "resample"),
            (r#"{"size": {"longest_edge": 5}}"#, "size"),
            (r#"{"size": 0}"#, "size"),
            (r#"{"crop_size": "big"}"#, "crop_size"),
            (r#"{"image_std": [1, 0, 1]}"#, "image_std"),
            (r#"{"do_center_crop": false}"#, "do_center_crop"),
        ] {
            let error = preprocessor(text).expect_err(field).to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
        let error = load(&[]).expect_err("nothing there").to_string();
        assert!(error.contains("preprocessor_config.json"), "{error}");
        assert!(matches!(
            preprocessor("{"),
            Err(DataError::ParseJson { .. })
        ));
    }
}
