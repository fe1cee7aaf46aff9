//! Tests of the machines and the fold.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bounds;
mod conformance;
mod fold;
mod fold_properties;
mod heartbeats;
mod host_machine;
mod matcher;
mod rollout_machine;
mod samples;
mod transitions;
