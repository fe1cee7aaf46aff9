//! Tests of the machines and the fold.

mod conformance;
mod fold;
mod fold_properties;
mod heartbeats;
mod host_machine;
mod matcher;
mod rollout_machine;
mod samples;
mod transitions;
