//! Keys and values of earlier tokens, for each layer as many as that layer has seen.

use burn::prelude::*;

/// The cache of a batch of sequences.
///
/// Layers before `drop_layer` hold the visual tokens' keys and values, later ones never do.
#[derive(Clone, Debug)]
pub struct KvCache<B: Backend> {
    layers: Vec<Option<(Tensor<B, 4>, Tensor<B, 4>)>>,
    /// Which slots hold a token (the others are padding), per sample, before and after the drop.
    pub(crate) before: Slots,
    pub(crate) after: Slots,
}

/// Slots of the layers on one side of the drop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    /// `[batch][slot]`, `true` = a token.
    pub(crate) used: Vec<Vec<bool>>,
    /// The position of the next token of each sample.
    pub(crate) next_position: Vec<usize>,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for `num_layers` layers.
    pub fn new(num_layers: usize) -> Self {
        Self {
            layers: vec![None; num_layers],
            before: Slots::default(),
            after: Slots::default(),
        }
    }

    /// Appends the new rows of a layer and returns all of them.
    ///
    /// # Shapes
    /// - key, value: `[batch, kv_heads, new, head_dim]`
    /// - output: `[batch, kv_heads, cached + new, head_dim]`
    pub(crate) fn append(
        &mut self,
        layer: usize,
        key: Tensor<B, 4>,
        value: Tensor<B, 4>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let (key, value) = match self.layers[layer].take() {
            Some((keys, values)) => (
                Tensor::cat(vec![keys, key], 2),
                Tensor::cat(vec![values, value], 2),
            ),
            None => (key, value),
        };
        self.layers[layer] = Some((key.clone(), value.clone()));
        (key, value)
    }

    /// Cached rows of each layer.
    pub fn lengths(&self) -> Vec<usize> {
        let length =
            |layer: &Option<(Tensor<B, 4>, _)>| layer.as_ref().map_or(0, |(key, _)| key.dims()[2]);
        self.layers.iter().map(length).collect()
    }

    /// Bytes held in all layers.
    pub fn bytes(&self) -> usize {
        let tensor = |x: &Tensor<B, 4>| x.shape().num_elements() * x.dtype().size();
        self.layers
            .iter()
            .flatten()
            .map(|(key, value)| tensor(key) + tensor(value))
            .sum()
    }

    /// Whether nothing was cached yet.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(Option::is_none)
    }

    /// The position that the next row of each sample takes in the layers before the drop: how many
    /// rows it has there, padding not counted. Empty for an empty cache.
    pub fn positions(&self) -> &[usize] {
        &self.before.next_position
    }

    /// Forgets the last `rows` rows of every layer, as if they had never been appended.
    ///
    /// They must be tokens: of a picture the layers on the two sides of the drop hold different rows.
    ///
    /// # Panics
    /// If a layer holds fewer rows.
    pub fn truncate(&mut self, rows: usize) {
        if rows == 0 {
            return;
        }
        for (key, value) in self.layers.iter_mut().flatten() {
            let left = key.dims()[2] - rows;
            *key = key.clone().narrow(2, 0, left);
            *value = value.clone().narrow(2, 0, left);
        }
        self.before.truncate(rows);
        self.after.truncate(rows);
    }
}

impl Slots {
    /// The samples; before the first row, `batch` of them without a row.
    pub(crate) fn begin(&mut self, batch: usize) {
        if self.used.is_empty() {
            self.used = vec![Vec::new(); batch];
            self.next_position = vec![0; batch];
        }
        assert_eq!(self.used.len(), batch, "the cache holds other samples");
    }

    /// Adds the slots of new rows, `[batch][new]`, that move each sample on by so many positions.
    pub(crate) fn extend(&mut self, rows: &[Vec<bool>], positions: &[usize]) {
        for (used, new) in self.used.iter_mut().zip(rows) {
            used.extend_from_slice(new);
        }
        for (next, new) in self.next_position.iter_mut().zip(positions) {
            *next += new;
        }
    }

    fn truncate(&mut self, rows: usize) {
        for (used, next) in self.used.iter_mut().zip(&mut self.next_position) {
            let forgotten = used.split_off(used.len() - rows);
            *next -= forgotten.into_iter().filter(|used| *used).count();
        }
    }

    /// The mask of the last `new` rows over all slots, `[batch, 1, new, slots]`, `true` = hidden;
    /// `None` when every slot holds a token, so that a fused kernel needs no mask.
    ///
    /// Causality is left to the attention.
    pub(crate) fn mask<B: Backend>(
        &self,
        new: usize,
        device: &B::Device,
    ) -> Option<Tensor<B, 4, Bool>> {
        if self.used.iter().flatten().all(|used| *used) {
            return None;
        }
        let (batch, slots) = (self.used.len(), self.used[0].len());
        let mut hidden = Vec::with_capacity(batch * new * slots);
        for used in &self.used {
            for row in slots - new..slots {
                // A padding row sees itself: a softmax over nothing is not a number on some backends.
                hidden.extend(
                    used.iter()
                        .enumerate()
                        .map(|(slot, used)| !used && slot != row),
                );
            }
        }
        Some(Tensor::from_data(
            TensorData::new(hidden, [batch, 1, new, slots]),
            device,
        ))
    }
}
