//! The reference: the log of every partition, folded in order in a fresh state.
//!
//! Nothing here knows of owners, turns, cursors or crashes. Whatever the services make of the log is
//! held against this.

use std::collections::BTreeMap;

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, Outcome, PinnedSet, Position};

/// Folded logs.
#[derive(Debug, Default)]
pub struct Reference {
    states: BTreeMap<Partition, PartitionState>,
    outcomes: BTreeMap<Partition, BTreeMap<Position, Outcome>>,
    /// What manifests pin.
    pub pinned: PinnedSet,
}

impl Reference {
    /// Folds the next entry of a partition's log.
    pub fn fold(&mut self, partition: Partition, position: Position, entry: &Entry) -> &Outcome {
        let state = self.states.entry(partition).or_default();
        let outcome = state.apply(position, entry, &self.pinned);
        let outcomes = self.outcomes.entry(partition).or_default();
        outcomes.insert(position, outcome);
        &outcomes[&position]
    }

    /// The state after everything in the log.
    pub fn state(&self, partition: Partition) -> Option<&PartitionState> {
        self.states.get(&partition)
    }

    /// All states.
    pub fn states(&self) -> impl Iterator<Item = (Partition, &PartitionState)> {
        self.states
            .iter()
            .map(|(partition, state)| (*partition, state))
    }

    /// The state before a position, built anew from what was folded.
    pub fn state_before(&self, partition: Partition, next: Position) -> PartitionState {
        let mut state = PartitionState::new();
        let outcomes = self.outcomes.get(&partition).into_iter();
        for (_, outcome) in outcomes.flat_map(|outcomes| outcomes.range(..next)) {
            state
                .absorb(outcome, &self.pinned)
                .expect("an outcome applies to the state it was decided on");
        }
        state
    }

    /// What the fold makes of an entry.
    pub fn outcome(&self, partition: Partition, position: Position) -> Option<&Outcome> {
        self.outcomes.get(&partition)?.get(&position)
    }
}
