//! The `sipalg` program.
fn main() {}
