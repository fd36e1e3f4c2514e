//! Row-major float32 arrays in memory, and the safetensors files they are read from and written to.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::output;

/// Tensors by name, in the order they are written.
pub(super) type Tensors = BTreeMap<String, Tensor>;

/// A dense float32 array.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    /// Lengths of the axes, outermost first.
    pub(super) shape: Vec<usize>,
    /// The values, the last axis running fastest.
    pub(super) values: Vec<f32>,
}

impl Tensor {
    /// An array of `shape`.
    ///
    /// # Errors
    /// When the number of values is not the product of the axes.
    pub(super) fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Self> {
        let shape = shape.into();
        ensure!(
            shape.iter().product::<usize>() == values.len(),
            "{} values do not fill the shape {shape:?}",
            values.len()
        );
        Ok(Self { shape, values })
    }

    /// The same array, refused unless its axes are `shape`.
    pub(super) fn expect(self, shape: &[usize], name: &str) -> Result<Self> {
        ensure!(
            self.shape == shape,
            "{name}: expected the shape {shape:?}, found {:?}",
            self.shape
        );
        Ok(self)
    }

    /// A matrix with its two axes exchanged: `[in, out]` to `[out, in]`.
    pub(super) fn transposed(&self) -> Result<Self> {
        let &[rows, columns] = self.shape.as_slice() else {
            anyhow::bail!("a matrix was expected, found the shape {:?}", self.shape);
        };
        let values = (0..columns)
            .flat_map(|column| (0..rows).map(move |row| row * columns + column))
            .map(|at| self.values[at])
            .collect();
        Self::new([columns, rows], values)
    }
}

/// The number of values in all tensors together.
pub(super) fn parameters(tensors: &Tensors) -> usize {
    tensors.values().map(|tensor| tensor.values.len()).sum()
}

/// Reads every tensor of a float32 safetensors file.
pub(super) fn read(path: &Path) -> Result<Tensors> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let file =
        SafeTensors::deserialize(&bytes).with_context(|| format!("parsing {}", path.display()))?;
    file.iter()
        .map(|(name, view)| {
            ensure!(
                view.dtype() == Dtype::F32,
                "{name} in {}: expected float32, found {:?}",
                path.display(),
                view.dtype()
            );
            let values = bytemuck::pod_collect_to_vec(view.data());
            Ok((name.to_owned(), Tensor::new(view.shape(), values)?))
        })
        .collect()
}

/// Writes tensors as a safetensors file of float32.
pub(super) fn write(path: &Path, tensors: &Tensors) -> Result<()> {
    let views = tensors
        .iter()
        .map(|(name, tensor)| {
            let bytes = bytemuck::cast_slice(&tensor.values);
            Ok((
                name,
                TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata))?;
    output::bytes(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposition_exchanges_the_axes() -> Result<()> {
        let matrix = Tensor::new([2, 3], vec![0., 1., 2., 3., 4., 5.])?;
        let expected = Tensor::new([3, 2], vec![0., 3., 1., 4., 2., 5.])?;
        assert_eq!(matrix.transposed()?, expected);
        assert_eq!(expected.transposed()?, matrix);
        Ok(())
    }

    #[test]
    fn a_file_gives_back_what_was_written() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("deeper/model.safetensors");
        let tensors = Tensors::from([("a.b".to_owned(), Tensor::new([1, 2], vec![1.5, -2.])?)]);
        write(&path, &tensors)?;
        assert_eq!(read(&path)?, tensors);
        assert_eq!(parameters(&tensors), 2);
        Ok(())
    }
}
