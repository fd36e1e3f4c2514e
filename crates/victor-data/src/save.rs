//! Writes tokenizer, template and processor as the files they are read from.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::processor::{ImageProcessor, ResizeTo, Size};
use crate::{ChatTemplate, DataError, Filter, Tokenizer};

impl Tokenizer {
    /// Writes `tokenizer.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), DataError> {
        let path = dir.join("tokenizer.json");
        self.inner
            .save(&path, false)
            .map_err(|source| DataError::SaveTokenizer { path, source })?;
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos(),
            "eos_token": self.eos(),
        });
        write_json(dir, "tokenizer_config.json", &config)
    }
}

impl ChatTemplate {
    /// Writes `chat_template.jinja`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), DataError> {
        write(dir, "chat_template.jinja", &self.source)
    }
}

impl ImageProcessor {
    /// Writes `preprocessor_config.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), DataError> {
        write_json(dir, "preprocessor_config.json", &self.to_json())
    }

    fn to_json(&self) -> Value {
        let size = |size: Size| json!({"height": size.height, "width": size.width});
        let tiles = !self.image_grid_pinpoints.is_empty();
        json!({
            "image_processor_type": if tiles { "LlavaNextImageProcessor" } else { "LlavaImageProcessor" },
            "do_resize": self.resize.is_some(),
            "size": self.resize.map(|resize| match resize {
                ResizeTo::ShortestEdge(edge) => json!({"shortest_edge": edge}),
                ResizeTo::Exact(exact) => size(exact),
            }),
            "resample": match self.filter {
                Filter::Bilinear => 2,
                Filter::Bicubic => 3,
            },
            "do_center_crop": self.center_crop.is_some(),
            "crop_size": self.center_crop.map(size),
            "do_rescale": self.rescale_factor.is_some(),
            "rescale_factor": self.rescale_factor,
            "do_normalize": self.do_normalize,
            "image_mean": self.mean,
            "image_std": self.std,
            "do_pad": self.pad_to_square || tiles,
            "image_aspect_ratio": if self.pad_to_square { "pad" } else { "square" },
            "image_grid_pinpoints": tiles.then_some(&self.image_grid_pinpoints),
        })
    }
}

fn write_json(dir: &Path, name: &str, value: &Value) -> Result<(), DataError> {
    write(dir, name, &format!("{value:#}\n"))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), DataError> {
    let path = dir.join(name);
    fs::write(&path, text).map_err(|source| DataError::WriteFile { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_comes_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let next = ImageProcessor {
            pad_to_square: false,
            resize: Some(ResizeTo::ShortestEdge(56)),
            filter: Filter::Bicubic,
            center_crop: Some(Size::square(56)),
            rescale_factor: Some(1.0 / 255.0),
            mean: [0.5, 0.25, 0.125],
            std: [0.3, 0.4, 0.6],
            do_normalize: true,
            image_grid_pinpoints: vec![[112, 56], [56, 112]],
        };
        let padded = ImageProcessor {
            pad_to_square: true,
            image_grid_pinpoints: Vec::new(),
            ..next.clone()
        };
        let exact = ImageProcessor {
            resize: Some(ResizeTo::Exact(Size {
                height: 20,
                width: 30,
            })),
            filter: Filter::Bilinear,
            center_crop: None,
            rescale_factor: None,
            do_normalize: false,
            pad_to_square: false,
            ..padded.clone()
        };
        for processor in [next, padded, exact] {
            processor.save(dir.path()).expect("written");
            let back = ImageProcessor::from_dir(dir.path()).expect("read");
            assert_eq!(back, processor);
        }
    }

    #[test]
    fn a_template_comes_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let template = ChatTemplate::built_in("vicuna_v1").expect("a template");
        template.save(dir.path()).expect("written");
        let back = ChatTemplate::from_dir(dir.path()).expect("read");
        let messages = [crate::Message::user(1, "What is it?")];
        assert_eq!(
            back.render(&messages, true).expect("text"),
            template.render(&messages, true).expect("text")
        );
    }
}
