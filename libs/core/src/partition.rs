//! The fold of one partition: entries in, outcomes out.
//!
//! [`PartitionState::apply`] decides an entry and applies its own outcome, so that a reader which applies
//! the outcomes has the same state as the owner.
//!
//! Source: docs/semantics.md, legality.

mod apply_outcome;
mod cpu_cache_prefetch;
mod decide;
mod entry_lookup;
mod frozen_state;
mod host_counters;
mod host_step;
mod host_table;
mod interning;
mod open_rollout;
mod operator_command;
mod outcome_size;
mod plan_action;
mod restore;
mod rollout;
mod rollout_host;
mod rollout_update;
mod state;
mod state_hash;

use nixfleet_proto::outcome::OutcomeSubject;
use nixfleet_proto::{Decision, Entry, EntryBody, Outcome, Position, StoredAt, mutation_testing};

pub use nixfleet_proto::PinnedSet;

pub use apply_outcome::ApplyOutcomeError;
pub use frozen_state::FrozenState;
pub use host_counters::HostCounters;
pub use host_table::HostTable;
pub use outcome_size::{MAX_OUTCOME_BYTES, write_outcome};
pub use restore::RestoreError;
pub use rollout::{GateHolds, Rollout};
pub use rollout_host::{ProbeFailures, RolloutHost};
pub use state::PartitionState;

use apply_outcome::UnknownRollouts;

impl PartitionState {
    /// Folds one entry, which the broker stored at `stored_at`, and returns its outcome.
    ///
    /// `pinned` must have the manifest of an `OpenRollout`; an entry with an absent manifest is rejected.
    /// Positions must increase from call to call. An outcome that exceeds a frame becomes a rejection.
    ///
    /// # Panics
    /// Never: an outcome decided on this state applies to it.
    pub fn apply(
        &mut self,
        position: Position,
        stored_at: StoredAt,
        entry: &Entry,
        pinned: &PinnedSet,
    ) -> Outcome {
        let outcome = self.decide(position, stored_at, entry, pinned);
        self.apply_outcome(&outcome, pinned)
            .expect("an outcome decided on this state applies to it");
        outcome
    }

    /// The outcome that [`PartitionState::apply`] would return; does not change the state.
    pub fn decide(
        &self,
        position: Position,
        stored_at: StoredAt,
        entry: &Entry,
        pinned: &PinnedSet,
    ) -> Outcome {
        let clock = decide::check_clock(entry.received_at, stored_at);
        let at = match (&clock, self.clock) {
            (Ok(()), Some(clock)) => clock.max(entry.received_at),
            (Ok(()), None) => entry.received_at,
            // A wrong clock does not move the time of the fold.
            (Err(_), Some(clock)) => clock,
            (Err(_), None) => stored_at.at(),
        };
        let at = if mutation_testing::is_active("fold-order-clock") {
            at + chrono::TimeDelta::milliseconds(mutation_testing::call_count())
        } else {
            at
        };
        let decided = clock.and_then(|()| decide::decide(self, at, &entry.body, pinned));
        let decision = match decided {
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

    /// Applies an outcome that another process decided on the same state.
    ///
    /// # Errors
    /// When the outcome names something that this state or `pinned` does not have. Drop the state then:
    /// the outcome may be applied in part.
    pub fn apply_outcome(
        &mut self,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<(), ApplyOutcomeError> {
        apply_outcome::apply_outcome(self, outcome, pinned, UnknownRollouts::Reject)
    }

    /// Like [`PartitionState::apply_outcome`], but skips the changes of rollouts that this state does not
    /// have: the owner decided on a state with more rollouts.
    ///
    /// # Errors
    /// Like [`PartitionState::apply_outcome`], except for unknown rollouts.
    pub fn apply_outcome_skipping_unknown(
        &mut self,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<(), ApplyOutcomeError> {
        apply_outcome::apply_outcome(self, outcome, pinned, UnknownRollouts::Skip)
    }

    /// SHA-256 of the state in canonical order, in lower-case hexadecimal digits.
    ///
    /// Excludes positions: they are references for audits, and no decision depends on them.
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
        actor: match body {
            EntryBody::Operator { origin, .. } => Some(Box::new(origin.actor.clone())),
            EntryBody::HostEvent { .. }
            | EntryBody::RecoveryCandidate { .. }
            | EntryBody::Plan { .. } => None,
        },
    }
}
