//! Captions a picture.
fn main() {}
