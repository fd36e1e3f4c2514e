//! Every stage of one request, under the names of the reference cases.

use crate::VictorError;
use crate::engine::Engine;
use crate::pictures::Picture;
use crate::request::Request;
use burn::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;
use victor_backend::VictorBackend;
use victor_model::KvCache;
use victor_weights::WeightsError;

/// Named tensors, in the order they were computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The tensors.
    pub tensors: Vec<TraceTensor>,
}

/// A tensor of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceTensor {
    /// Its name, as in the reference cases.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: TraceValues,
}

/// Numbers of a trace.
#[derive(Clone, Debug, PartialEq)]
pub enum TraceValues {
    /// A stage.
    Float(Vec<f32>),
    /// Token ids.
    Int(Vec<i64>),
}

impl Trace {
    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&TraceTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Writes a safetensors file: beside `path` first, renamed when whole.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), VictorError> {
        let io = |source| WeightsError::Io {
            path: path.into(),
            source,
        };
        let bytes: Vec<(Dtype, Vec<u8>)> = self.tensors.iter().map(TraceTensor::bytes).collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (tensor, (dtype, bytes)) in self.tensors.iter().zip(&bytes) {
            let view = TensorView::new(*dtype, tensor.shape.clone(), bytes).map_err(|source| {
                WeightsError::Header {
                    path: path.into(),
                    source,
                }
            })?;
            views.push((tensor.name, view));
        }
        let file = safetensors::serialize(views, None).map_err(|source| WeightsError::Header {
            path: path.into(),
            source,
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.partial"));
        std::fs::write(&partial, file).map_err(io)?;
        std::fs::rename(&partial, path).map_err(io)?;
        Ok(())
    }

    fn float<B: Backend, const D: usize>(
        &mut self,
        name: &'static str,
        tensor: Tensor<B, D>,
        shape: &[usize],
    ) {
        let values = tensor
            .into_data()
            .convert::<f32>()
            .to_vec()
            .unwrap_or_default();
        let values = TraceValues::Float(values);
        self.tensors.push(TraceTensor {
            name,
            shape: shape.into(),
            values,
        });
    }

    /// `[images, 3, H, W]`, or with tiles `[images, views, 3, H, W]` where pictures of fewer views are
    /// filled up with zeros.
    fn pixels(&mut self, pictures: &[&Picture], tiles: bool) {
        let Some(first) = pictures.first().and_then(|picture| picture.views.first()) else {
            return;
        };
        let views = pictures.iter().map(|picture| picture.views.len()).max();
        let views = views.unwrap_or(1);
        let view = [first.channels, first.height, first.width];
        let length = views * view.iter().product::<usize>();
        let mut values = Vec::with_capacity(pictures.len() * length);
        for (index, picture) in pictures.iter().enumerate() {
            let numbers = picture.views.iter().flat_map(|view| &view.values);
            values.extend(numbers.copied());
            values.resize((index + 1) * length, 0.0);
        }
        let mut shape = vec![pictures.len()];
        shape.extend(tiles.then_some(views));
        shape.extend(view);
        self.tensors.push(TraceTensor {
            name: "pixel_values",
            shape,
            values: TraceValues::Float(values),
        });
    }

    fn ids(&mut self, name: &'static str, ids: &[u32]) {
        let values = TraceValues::Int(ids.iter().map(|id| i64::from(*id)).collect());
        self.tensors.push(TraceTensor {
            name,
            shape: vec![ids.len()],
            values,
        });
    }
}

impl TraceTensor {
    fn bytes(&self) -> (Dtype, Vec<u8>) {
        match &self.values {
            TraceValues::Float(values) => (
                Dtype::F32,
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            ),
            TraceValues::Int(values) => (
                Dtype::I64,
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            ),
        }
    }
}

impl<B: VictorBackend> Engine<B> {
    /// Every stage of one request, then greedy tokens.
    ///
    /// # Errors
    /// If the request does not fit the model.
    pub fn trace(&self, request: &Request, max_new_tokens: usize) -> Result<Trace, VictorError> {
        let prepared = self.prepare(std::slice::from_ref(request))?;
        let layout = self.layout(&prepared)?;
        let prepared = &prepared[0];
        let hidden = self.model.config().text_config.hidden_size;
        let vocab = self.model.config().text_config.vocab_size;
        let mut trace = Trace::default();

        let pictures: Vec<&Picture> = prepared.pictures.iter().collect();
        trace.pixels(&pictures, self.has_tiles());
        trace.ids("input_ids", &prepared.sequence.ids);
        let visual = self.features(&pictures).map(|features| {
            // The references hold no features of tiles: only what they are put together to.
            if !self.has_tiles() {
                let [views, tokens, width] = features.dims();
                let shape = [views * tokens, width];
                trace.float("vision_features", features.clone(), &shape);
            }
            let projected = self.merge(features, &pictures);
            let shape = projected.dims();
            trace.float("projected", projected.clone(), &shape);
            projected
        });
        let embeds = self.model.embed(&layout, visual);
        let rows = layout.rows()[0].iter().enumerate();
        // The references hold the embeddings before registers are inserted.
        let before: Vec<i32> = rows
            .filter(|(_, row)| !matches!(row, victor_model::Row::Register(_)))
            .map(|(index, _)| index as i32)
            .collect();
        let count = before.len();
        let index = Tensor::from_data(TensorData::new(before, [count]), &self.device);
        trace.float(
            "inputs_embeds",
            embeds.clone().select(1, index),
            &[count, hidden],
        );

        let mut cache = KvCache::new(self.model.config().text_config.num_hidden_layers);
        let last = self.model.forward(&layout, embeds, Some(&mut cache));
        let rows = last.dims()[1];
        let logits = self.model.language_model.logits(last);
        trace.float("logits_prefill", logits.clone(), &[rows, vocab]);
        let mut next = logits.narrow(1, rows - 1, 1).reshape([1, vocab]);
        trace.float("first_logits", next.clone(), &[vocab]);
        let mut generated = Vec::new();
        while generated.len() < max_new_tokens {
            let id = argmax(next);
            generated.push(id);
            if generated.len() == max_new_tokens {
                break;
            }
            next = self.model.decode(&[id], &mut cache);
        }
        trace.ids("generated_ids", &generated);
        Ok(trace)
    }
}

fn argmax<B: Backend>(logits: Tensor<B, 2>) -> u32 {
    let mut values = logits.into_data().convert::<f32>();
    let values: &mut [f32] = values.as_mut_slice().unwrap_or_default();
    crate::Sampler::new(Default::default(), 0, &[]).sample(values)
}
