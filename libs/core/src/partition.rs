//! The fold of one partition: entries in, outcomes out.
//!
//! [`PartitionState::apply`] decides and then absorbs its own outcome, so whoever absorbs outcomes
//! has the same state as whoever made them.
//!
//! Source: docs/semantics.md, legality.

mod absorb;
mod ahead;
mod decide;
mod draft;
mod freeze;
mod hash;
mod host_entry;
mod hosts;
mod open;
mod operator;
mod plan;
mod restore;
mod share;
mod size;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;

use nixfleet_proto::frame::MAX_OUTPUT_FRAME_BYTES;
use nixfleet_proto::outcome::OutcomeSubject;
use nixfleet_proto::snapshot::Cause;
use nixfleet_proto::{
    ChannelName, ClosureHash, Entry, EntryBody, Gate, Hold, HostState, Hostname, ManifestHash,
    Outcome, Pinned, Position, RolloutId, RolloutRecord, Timestamp, Verdict, mutant,
};

pub use nixfleet_proto::PinnedSet;

pub use absorb::AbsorbError;
pub use freeze::Frozen;
pub use host_entry::{HostEntry, ProbeFailures};
pub use hosts::Hosts;
pub use restore::RestoreError;
pub use size::write;
pub use tally::Tally;

use absorb::Strangers;
use share::Topologies;

/// Most bytes of one outcome as JSON, the comma behind it included: a frame holds at least one.
pub const MAX_OUTCOME_BYTES: usize = MAX_OUTPUT_FRAME_BYTES - 16 * 1024;

/// Everything the log of one partition has led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionState {
    rollouts: BTreeMap<RolloutId, Rollout>,
    quarantines: BTreeMap<ChannelName, BTreeMap<ClosureHash, Cause>>,
    leader_epoch: u64,
    clock: Option<Timestamp>,
}

/// One rollout with its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// The record.
    pub record: RolloutRecord,
    /// The manifest it was opened with.
    pub manifest_hash: ManifestHash,
    /// What that manifest pins.
    pub pinned: Arc<Pinned>,
    /// The entry that last changed the record.
    pub position: Position,
    /// The hosts.
    pub hosts: Hosts,
    /// Current holds by wave and gate; a gate that holds nobody is absent.
    pub blocks: BTreeMap<(u32, Gate), Arc<Held>>,
    /// Counters over `hosts`, derived.
    pub tally: Tally,
    topologies: Topologies,
}

/// The hosts that one gate holds in one wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Who is held and why.
    pub holds: Vec<Hold>,
    /// The entry that stated it.
    pub cause: Cause,
}

impl Rollout {
    /// Converged, Deferred or waived.
    pub fn is_done(&self, hostname: &Hostname) -> bool {
        self.is_waived(hostname)
            || self
                .hosts
                .get(hostname)
                .is_some_and(|host| host.record.state.is_done())
    }

    /// Excused by an operator.
    pub fn is_waived(&self, hostname: &Hostname) -> bool {
        self.record.waived_hosts.contains(hostname)
    }

    /// Nothing may be dispatched: the rollout is Failed or Reverted, or a host that is not waived is
    /// Failed.
    pub fn is_halted(&self) -> bool {
        crate::rollout::is_halt(self.record.state) || self.first_halting().is_some()
    }

    /// The first host, by name, that halts the rollout.
    pub fn first_halting(&self) -> Option<(&Hostname, HostState)> {
        let hostname = self.tally.halting().first()?;
        let host = self.hosts.get(hostname)?;
        Some((hostname, host.record.state))
    }

    /// True when every host of the current wave is done.
    pub fn is_current_wave_done(&self) -> bool {
        self.tally.progress().is_wave_done(self.record.current_wave)
    }

    /// The next wave after the current one that has hosts.
    pub fn next_wave(&self) -> Option<u32> {
        self.tally.progress().next_wave(self.record.current_wave)
    }
}

impl PartitionState {
    /// A partition whose log is empty.
    pub fn new() -> Self {
        Self::default()
    }

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

    /// Every rollout of the partition, any state.
    pub fn rollouts(&self) -> &BTreeMap<RolloutId, Rollout> {
        &self.rollouts
    }

    /// One rollout.
    pub fn rollout(&self, rollout_id: &RolloutId) -> Option<&Rollout> {
        self.rollouts.get(rollout_id)
    }

    /// Quarantined closures by channel, with the entry that caused each.
    pub fn quarantines(&self) -> &BTreeMap<ChannelName, BTreeMap<ClosureHash, Cause>> {
        &self.quarantines
    }

    /// True when the closure is banned from the channel.
    pub fn is_quarantined(&self, channel: &ChannelName, closure: &ClosureHash) -> bool {
        self.quarantines
            .get(channel)
            .is_some_and(|closures| closures.contains_key(closure))
    }

    /// Highest planner epoch seen; 0 before the first barrier.
    pub fn leader_epoch(&self) -> u64 {
        self.leader_epoch
    }

    /// Fold time; absent before the first entry.
    pub fn clock(&self) -> Option<Timestamp> {
        self.clock
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
