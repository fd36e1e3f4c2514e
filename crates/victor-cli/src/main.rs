//! The `victor` command.
fn main() {}
