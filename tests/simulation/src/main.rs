//! `nixfleet-sim`.
fn main() {}
