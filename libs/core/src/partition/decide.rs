//! Legality and effects of each kind of entry.
//!
//! Source: docs/semantics.md, legality.

use nixfleet_proto::{EntryBody, Timestamp};

use super::entry_lookup::{Decided, find_host};
use super::host_step::{recovery_candidate, step_host};
use super::{PartitionState, PinnedSet, operator_command, plan_action};
use crate::host::HostInput;

/// Decides one entry at fold time `at`, without changing the state.
pub(super) fn decide(
    state: &PartitionState,
    at: Timestamp,
    body: &EntryBody,
    pinned: &PinnedSet,
) -> Decided {
    match body {
        EntryBody::HostEvent {
            rollout_id,
            hostname,
            producer,
            event,
        } => {
            let target = find_host(state, rollout_id, hostname)?;
            let producer = *producer;
            step_host(target, &HostInput::Event { producer, event }, at)
        }
        EntryBody::RecoveryCandidate {
            rollout_id,
            hostname,
            current_closure,
        } => {
            let target = find_host(state, rollout_id, hostname)?;
            recovery_candidate(target, current_closure)
        }
        EntryBody::Plan { epoch, action } => {
            plan_action::decide(state, at, (*epoch, action), pinned)
        }
        EntryBody::Operator { command } => operator_command::decide(state, at, command),
    }
}
