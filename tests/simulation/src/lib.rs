//! Deterministic simulation: the real cores of every service and of the agents in one thread, in
//! virtual time, on a model log and a model database, with faults from a seed.
//!
//! Knows every core and no shell: no runtime, no socket, no clock, no random source but its own.
//! Start reading at [`engine`] (what makes a run repeatable).

#![cfg_attr(
    test,
    expect(clippy::unwrap_used, reason = "a test fails by panicking")
)]

pub mod engine;
pub mod model;
