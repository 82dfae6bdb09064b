//! The `node-lua` binary.

fn main() {}
