//! Tests of the machines and the fold.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conformance;
mod expectation_matcher;
mod fold;
mod fold_properties;
mod heartbeats;
mod host_machine;
mod outcome_bounds;
mod rollout_machine;
mod sample_records;
mod transitions;
