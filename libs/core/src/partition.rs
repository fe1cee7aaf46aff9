//! The fold of one partition: entries in, outcomes out.
//!
//! [`PartitionState::apply`] decides and then absorbs its own outcome, so whoever absorbs outcomes
//! has the same state as whoever made them.
//!
//! Source: docs/semantics.md, legality.

mod apply_outcome;
mod decide;
mod decision;
mod frozen_state;
mod host_counters;
mod host_entry;
mod host_step;
mod host_table;
mod interning;
mod open_rollout;
mod operator_command;
mod outcome_size;
mod plan_action;
mod prefetch;
mod restore;
mod rollout;
mod rollout_update;
mod state;
mod state_hash;

use nixfleet_proto::outcome::OutcomeSubject;
use nixfleet_proto::{Decision, Entry, EntryBody, Outcome, Position, mutation_testing};

pub use nixfleet_proto::PinnedSet;

pub use apply_outcome::ApplyOutcomeError;
pub use frozen_state::FrozenState;
pub use host_counters::HostCounters;
pub use host_entry::{HostEntry, ProbeFailures};
pub use host_table::HostTable;
pub use outcome_size::{MAX_OUTCOME_BYTES, write_outcome};
pub use restore::RestoreError;
pub use rollout::{GateHolds, Rollout};
pub use state::PartitionState;

use apply_outcome::UnknownRollouts;

impl PartitionState {
    /// Folds one entry: decides, absorbs the decision, returns it.
    ///
    /// `pinned` must hold what the manifest of an `OpenRollout` pins; one that is absent could not
    /// be pinned and is refused. Positions must rise from call to call. What no frame could hold is a
    /// rejection.
    ///
    /// # Panics
    /// Never: an outcome decided on this state applies to it.
    pub fn apply(&mut self, position: Position, entry: &Entry, pinned: &PinnedSet) -> Outcome {
        let outcome = self.decide(position, entry, pinned);
        self.apply_outcome(&outcome, pinned)
            .expect("an outcome decided on this state applies to it");
        outcome
    }

    /// What [`PartitionState::apply`] would make of an entry; the state stays as it is.
    pub fn decide(&self, position: Position, entry: &Entry, pinned: &PinnedSet) -> Outcome {
        let at = self
            .clock
            .map_or(entry.received_at, |clock| clock.max(entry.received_at));
        let at = if mutation_testing::is_active("fold-order-clock") {
            at + chrono::TimeDelta::milliseconds(mutation_testing::call_count())
        } else {
            at
        };
        let decision = match decide::decide(self, at, &entry.body, pinned) {
            Ok(accepted) => Decision::Accepted(Box::new(accepted)),
            Err(rejection) => Decision::Rejected(rejection),
        };
        let mut outcome = Outcome {
            position,
            at,
            subject: subject(&entry.body),
            traceparent: entry.traceparent.clone(),
            decision,
        };
        outcome_size::reject_oversized(&mut outcome);
        outcome
    }

    /// Takes over an outcome that was decided elsewhere on the same state.
    ///
    /// # Errors
    /// When the outcome speaks of something this state or `pinned` does not have; the state must
    /// then be dropped, it may hold half of the outcome.
    pub fn apply_outcome(
        &mut self,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<(), ApplyOutcomeError> {
        apply_outcome::apply_outcome(self, outcome, pinned, UnknownRollouts::Reject)
    }

    /// As [`PartitionState::apply_outcome`], of an outcome that was decided on a state that knew more
    /// rollouts: what it says of those is passed over, everything else is taken.
    ///
    /// # Errors
    /// As [`PartitionState::apply_outcome`], but for rollouts that do not exist.
    pub fn apply_outcome_skipping_unknown(
        &mut self,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<(), ApplyOutcomeError> {
        apply_outcome::apply_outcome(self, outcome, pinned, UnknownRollouts::Skip)
    }

    /// SHA-256 of the whole state in canonical order, in lower-case hexadecimal digits.
    ///
    /// Positions are left out: they are references for audits, and nothing is decided by them.
    pub fn hash(&self) -> String {
        state_hash::hash(self)
    }
}

fn subject(body: &EntryBody) -> OutcomeSubject {
    let (event, producer) = match body {
        EntryBody::HostEvent {
            event, producer, ..
        } => (Some(event.body.name().into()), Some(*producer)),
        EntryBody::RecoveryCandidate { .. }
        | EntryBody::Plan { .. }
        | EntryBody::Operator { .. } => (None, None),
    };
    OutcomeSubject {
        entry: body.name().into(),
        event,
        producer,
        rollout_id: body.rollout_id().cloned(),
        hostname: body.hostname().cloned(),
    }
}
