//! The part of an ONNX file that holds weights: initialisers, and the nodes that use them.
//!
//! The messages are declared by hand after `onnx.proto`, with only the fields read here. The `onnx-ir`
//! crate is no help: it numbers nodes and their outputs anew, and the names are what tells weights apart.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use prost::Message;

use super::tensor::Tensor;

/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;

#[derive(Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
}

#[derive(Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
}

#[derive(Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
}

#[derive(Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

/// The weights of an ONNX graph.
pub(super) struct Graph {
    initializers: HashMap<String, TensorProto>,
    inputs: HashMap<String, Vec<String>>,
}

impl Graph {
    /// Reads the bytes of an `.onnx` file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let model = ModelProto::decode(bytes).context("parsing the ONNX file")?;
        let graph = model.graph.context("the ONNX file holds no graph")?;
        let nodes = graph.node.into_iter();
        let initializers = graph.initializer.into_iter();
        Ok(Self {
            initializers: initializers.map(|it| (it.name.clone(), it)).collect(),
            inputs: nodes.map(|node| (node.name, node.input)).collect(),
        })
    }

    /// The initialiser of this name.
    pub(super) fn initializer(&self, name: &str) -> Result<Tensor> {
        let found = self
            .initializers
            .get(name)
            .with_context(|| format!("the ONNX file holds no initialiser {name}"))?;
        ensure!(
            found.data_type == FLOAT,
            "{name}: expected float32, found the ONNX type {}",
            found.data_type
        );
        let shape = found
            .dims
            .iter()
            .map(|&axis| {
                usize::try_from(axis).with_context(|| format!("{name}: an axis of {axis}"))
            })
            .collect::<Result<Vec<_>>>()?;
        let values = if found.raw_data.is_empty() {
            found.float_data.clone()
        } else {
            let (floats, rest) = found.raw_data.as_chunks::<4>();
            ensure!(rest.is_empty(), "{name}: bytes after the last float");
            floats
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect()
        };
        Tensor::new(shape, values).with_context(|| name.to_owned())
    }

    /// The one initialiser among the inputs of a node: how a weight without a name of its own is found.
    pub(super) fn initializer_of(&self, node: &str) -> Result<Tensor> {
        let inputs = self
            .inputs
            .get(node)
            .with_context(|| format!("the ONNX file holds no node {node}"))?;
        let mut weights = inputs
            .iter()
            .filter(|input| self.initializers.contains_key(*input));
        let name = weights
            .next()
            .with_context(|| format!("{node} uses no initialiser"))?;
        ensure!(
            weights.next().is_none(),
            "{node} uses more than one initialiser"
        );
        self.initializer(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unnamed_weight_is_found_by_its_node() -> Result<()> {
        let raw_data = [1.0_f32, 2.0]
            .iter()
            .flat_map(|it| it.to_le_bytes())
            .collect();
        let weight = TensorProto {
            dims: vec![1, 2],
            data_type: FLOAT,
            name: "onnx::MatMul_1".to_owned(),
            raw_data,
            ..TensorProto::default()
        };
        let node = NodeProto {
            input: vec!["x".to_owned(), weight.name.clone()],
            name: "/fc/MatMul".to_owned(),
        };
        let graph = GraphProto {
            node: vec![node],
            initializer: vec![weight],
        };
        let model = ModelProto { graph: Some(graph) };
        let graph = Graph::parse(&model.encode_to_vec())?;
        let found = graph.initializer_of("/fc/MatMul")?;
        assert_eq!(found, Tensor::new([1, 2], vec![1.0, 2.0])?);
        assert!(graph.initializer_of("/fc/Add").is_err());
        assert!(graph.initializer("x").is_err());
        Ok(())
    }
}
