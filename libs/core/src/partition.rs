//! The fold of one partition: entries in, outcomes out.
//!
//! [`PartitionState::apply`] decides and then absorbs its own outcome, so whoever absorbs outcomes
//! has the same state as whoever made them.
//!
//! Source: docs/semantics.md, legality.

mod absorb;
mod ahead;
mod decide;
mod decision;
mod draft;
mod freeze;
mod hash;
mod host_entry;
mod host_step;
mod hosts;
mod open;
mod operator;
mod plan;
mod restore;
mod rollout;
mod share;
mod size;
mod state;
mod tally;

use nixfleet_proto::outcome::OutcomeSubject;
use nixfleet_proto::{Entry, EntryBody, Outcome, Position, Verdict, mutant};

pub use nixfleet_proto::PinnedSet;

pub use absorb::AbsorbError;
pub use freeze::Frozen;
pub use host_entry::{HostEntry, ProbeFailures};
pub use hosts::Hosts;
pub use restore::RestoreError;
pub use rollout::{Held, Rollout};
pub use size::{MAX_OUTCOME_BYTES, write};
pub use state::PartitionState;
pub use tally::Tally;

use absorb::Strangers;

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
        self.absorb(&outcome, pinned)
            .expect("an outcome decided on this state applies to it");
        outcome
    }

    /// What [`PartitionState::apply`] would make of an entry; the state stays as it is.
    pub fn decide(&self, position: Position, entry: &Entry, pinned: &PinnedSet) -> Outcome {
        let at = self
            .clock
            .map_or(entry.received_at, |clock| clock.max(entry.received_at));
        let at = if mutant::is("fold-order-clock") {
            at + chrono::TimeDelta::milliseconds(mutant::count())
        } else {
            at
        };
        let verdict = match decide::decide(self, at, &entry.body, pinned) {
            Ok(accepted) => Verdict::Accepted(Box::new(accepted)),
            Err(rejection) => Verdict::Rejected(rejection),
        };
        let mut outcome = Outcome {
            position,
            at,
            subject: subject(&entry.body),
            traceparent: entry.traceparent.clone(),
            verdict,
        };
        size::fit(&mut outcome);
        outcome
    }

    /// Takes over an outcome that was decided elsewhere on the same state.
    ///
    /// # Errors
    /// When the outcome speaks of something this state or `pinned` does not have; the state must
    /// then be dropped, it may hold half of the outcome.
    pub fn absorb(&mut self, outcome: &Outcome, pinned: &PinnedSet) -> Result<(), AbsorbError> {
        absorb::absorb(self, outcome, pinned, Strangers::Refused)
    }

    /// As [`PartitionState::absorb`], of an outcome that was decided on a state that knew more
    /// rollouts: what it says of those is passed over, everything else is taken.
    ///
    /// # Errors
    /// As [`PartitionState::absorb`], but for rollouts that do not exist.
    pub fn absorb_known(
        &mut self,
        outcome: &Outcome,
        pinned: &PinnedSet,
    ) -> Result<(), AbsorbError> {
        absorb::absorb(self, outcome, pinned, Strangers::PassedOver)
    }

    /// SHA-256 of the whole state in canonical order, in lower-case hexadecimal digits.
    ///
    /// Positions are left out: they are references for audits, and nothing is decided by them.
    pub fn hash(&self) -> String {
        hash::hash(self)
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
