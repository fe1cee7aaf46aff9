//! One broken host stops the whole rollout until an operator or a new release says otherwise.

use nixfleet_proto::Gate;

use super::{Block, Candidate};
use crate::view::FleetView;

/// Holds every host of a halted rollout.
///
/// # Errors
/// The block; names the first host that failed or went back.
///
/// Source: docs/semantics.md, gate `halt`.
pub fn check(_view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    let rollout = candidate.rollout;
    if !rollout.is_halted() {
        return Ok(());
    }
    Err(match rollout.first_broken() {
        Some((hostname, host)) => {
            let reason = format!("halt: host '{hostname}' is {}", host.state.name());
            Block::new(Gate::Halt, reason).caused_by(host.position)
        }
        None => {
            let state = rollout.record.state.name();
            Block::new(Gate::Halt, format!("halt: rollout is {state}"))
        }
    })
}
