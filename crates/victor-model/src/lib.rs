//! The Victor vision-language model: tensors only.
