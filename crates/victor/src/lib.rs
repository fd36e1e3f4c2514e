//! The Victor engine: load a checkpoint, generate text about pictures.
