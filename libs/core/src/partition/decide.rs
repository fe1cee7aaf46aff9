//! Legality and effects of each kind of entry.
//!
//! Source: docs/semantics.md, legality.

use chrono::TimeDelta;
use nixfleet_proto::{Entry, EntryBody, Reason, Rejection, StoredAt, Timestamp, mutation_testing};

use super::entry_lookup::{Decided, find_host};
use super::host_step::{recovery_candidate, step_host};
use super::{PartitionState, PinnedSet, operator_command, plan_action};
use crate::host::HostInput;

/// Rejects an entry whose time is too far from the broker's: the clock of its writer is wrong.
///
/// Source: docs/semantics.md, time.
pub(super) fn check_clock(received_at: Timestamp, stored_at: StoredAt) -> Result<(), Rejection> {
    let offset = received_at - stored_at.at();
    if offset.abs() <= Entry::CLOCK_SLACK || mutation_testing::is_active("fold-any-clock") {
        return Ok(());
    }
    let side = if offset < TimeDelta::zero() {
        "behind"
    } else {
        "ahead of"
    };
    let message = format!(
        "the clock of the service that appended the entry was {} s {side} the broker's: receivedAt is \
         {received_at}, the broker stored the entry at {}",
        offset.num_seconds().abs(),
        stored_at.at()
    );
    Err(Rejection::new(Reason::Clock, message))
}

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
        EntryBody::Operator { command, origin } => {
            operator_command::decide(state, at, (command, origin))
        }
    }
}
