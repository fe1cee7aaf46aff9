//! The reference: the log of every partition, folded in order in a fresh state.
//!
//! Independent of owners, turns, cursors and crashes: results of the services are compared with it.

use std::collections::BTreeMap;

use crate::simulated_console;
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, Outcome, PinnedSet, Position, StoredAt};

/// Folded logs.
#[derive(Debug, Default)]
pub struct ReferenceFold {
    folded: BTreeMap<Partition, Folded>,
    /// The pinned manifests.
    pub pinned: PinnedSet,
}

/// The folded log of one partition.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    state: PartitionState,
    outcomes: BTreeMap<Position, Outcome>,
}

impl ReferenceFold {
    /// Folds the next entry of a partition's log.
    pub fn fold(
        &mut self,
        partition: Partition,
        (position, stored_at): (Position, StoredAt),
        entry: &Entry,
    ) -> &Outcome {
        let folded = self.folded.entry(partition).or_default();
        let mut entry = entry.clone();
        simulated_console::check(&mut entry);
        let outcome = folded
            .state
            .apply(position, stored_at, &entry, &self.pinned);
        folded.outcomes.insert(position, outcome);
        &folded.outcomes[&position]
    }

    /// The state after everything in the log.
    pub fn state(&self, partition: Partition) -> Option<&PartitionState> {
        self.folded.get(&partition).map(|folded| &folded.state)
    }

    /// All states.
    pub fn states(&self) -> impl Iterator<Item = (Partition, &PartitionState)> {
        self.folded
            .iter()
            .map(|(partition, folded)| (*partition, &folded.state))
    }

    /// The state before a position, rebuilt from the outcomes.
    pub fn state_before(&self, partition: Partition, next: Position) -> PartitionState {
        let mut state = PartitionState::new();
        let folded = self.folded.get(&partition).into_iter();
        for (_, outcome) in folded.flat_map(|folded| folded.outcomes.range(..next)) {
            state
                .apply_outcome(outcome, &self.pinned)
                .expect("an outcome applies to the state it was decided on");
        }
        state
    }

    /// The outcome of an entry.
    pub fn outcome(&self, partition: Partition, position: Position) -> Option<&Outcome> {
        self.folded.get(&partition)?.outcome(position)
    }

    /// A copy of the folded log.
    pub fn folded(&self, partition: Partition) -> Folded {
        self.folded.get(&partition).cloned().unwrap_or_default()
    }

    /// Replaces the folded log by a copy.
    pub fn replace(&mut self, partition: Partition, folded: Folded) {
        self.folded.insert(partition, folded);
    }

    /// Forgets every log.
    pub fn forget(&mut self) {
        self.folded.clear();
    }

    /// Forgets every entry after a sequence of the log.
    pub fn truncate(&mut self, partition: Partition, last: u64) {
        let (seq, index) = (last + 1, 0);
        let next = Position { seq, index };
        let state = self.state_before(partition, next);
        if let Some(folded) = self.folded.get_mut(&partition) {
            folded.outcomes.split_off(&next);
            folded.state = state;
        }
    }
}

impl Folded {
    /// The outcome of an entry.
    pub fn outcome(&self, position: Position) -> Option<&Outcome> {
        self.outcomes.get(&position)
    }
}
