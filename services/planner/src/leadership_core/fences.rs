//! The fences of a leader: one barrier per partition, each with its epoch. A partition that takes no barrier is
//! held: the leader plans nothing there and leads the others.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Position, Timestamp, mutation_testing};

/// Stage of a leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Barriers of the next epoch are due.
    Unfenced,
    /// Barriers are being appended; their outcomes are awaited.
    Fencing,
    /// The view has every action of earlier leaders in every partition that is not held: plans may be made.
    Leading,
}

#[derive(Debug)]
pub(super) struct Fences {
    /// Highest epoch so far; 0 before the first barrier.
    epoch: u64,
    of: BTreeMap<Partition, Fence>,
}

#[derive(Debug)]
struct Fence {
    epoch: u64,
    barrier: Barrier,
    is_held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Barrier {
    /// None is in the log, as far as this leader knows.
    Missing,
    /// It is being appended.
    Appending,
    /// It is in the log.
    Awaited(Position),
    /// The partition accepted it.
    Accepted,
    /// The partition rejected it, or another entry has its position.
    Rejected,
}

impl Fences {
    pub fn new(partitions: u16) -> Self {
        let fence = || Fence {
            epoch: 0,
            barrier: Barrier::Missing,
            is_held: false,
        };
        let of = Partition::all(partitions).map(|partition| (partition, fence()));
        Self {
            epoch: 0,
            of: of.collect(),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Epoch of the entries of this leader in a partition.
    pub fn epoch_of(&self, partition: Partition) -> u64 {
        self.of.get(&partition).map_or(0, |fence| fence.epoch)
    }

    pub fn stage(&self) -> Stage {
        if self.epoch > 0 && mutation_testing::is_active("planner-skip-barrier") {
            return Stage::Leading;
        }
        let led = || self.of.values().filter(|fence| !fence.is_held);
        let is_any = |is: fn(&Barrier) -> bool| led().any(|fence| is(&fence.barrier));
        if is_any(|barrier| matches!(barrier, Barrier::Appending | Barrier::Awaited(_))) {
            Stage::Fencing
        } else if is_any(|barrier| matches!(barrier, Barrier::Missing | Barrier::Rejected)) {
            // A barrier was rejected or lost: an earlier leader that the rows did not show had this
            // epoch or a higher one, or the log lost its end.
            Stage::Unfenced
        } else {
            Stage::Leading
        }
    }

    /// Begins a higher epoch in every partition, and leads none of them before its barrier is accepted.
    pub fn begin(&mut self, now: Timestamp, highest: u64) -> Vec<Partition> {
        let partitions: Vec<Partition> = self.of.keys().copied().collect();
        self.begin_in(&partitions, now, highest);
        for fence in self.of.values_mut() {
            fence.is_held = false;
        }
        partitions
    }

    /// Begins a higher epoch in the held partitions without a barrier.
    pub fn begin_held(&mut self, now: Timestamp, highest: u64) -> Vec<Partition> {
        let held = self.of.iter();
        let held = held.filter(|(_, fence)| fence.is_held && fence.barrier == Barrier::Missing);
        let held: Vec<Partition> = held.map(|(partition, _)| *partition).collect();
        if !held.is_empty() {
            self.begin_in(&held, now, highest);
        }
        held
    }

    fn begin_in(&mut self, partitions: &[Partition], now: Timestamp, highest: u64) {
        let millisecond = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        self.epoch = self.epoch.max(highest).saturating_add(1);
        if !mutation_testing::is_active("planner-skip-barrier") {
            self.epoch = self.epoch.max(millisecond);
        }
        for partition in partitions {
            if let Some(fence) = self.of.get_mut(partition) {
                fence.epoch = self.epoch;
                fence.barrier = Barrier::Appending;
            }
        }
    }

    pub fn appended(&mut self, partition: Partition, position: Position) {
        if let Some(fence) = self.of.get_mut(&partition) {
            fence.barrier = Barrier::Awaited(position);
        }
    }

    /// The log of a partition takes no entries. What this leader appended before may be folded or not: only a
    /// new barrier tells.
    pub fn hold(&mut self, partition: Partition) {
        if let Some(fence) = self.of.get_mut(&partition) {
            fence.barrier = Barrier::Missing;
            fence.is_held = true;
        }
    }

    /// Leads the others meanwhile: the partition stays held until its barrier is answered.
    pub fn hold_awaited(&mut self, partition: Partition) {
        if let Some(fence) = self.of.get_mut(&partition) {
            fence.is_held = true;
        }
    }

    /// Takes the outcome at a position; `accepted` is the epoch of an accepted barrier.
    pub fn answered(&mut self, partition: Partition, position: Position, accepted: Option<u64>) {
        let Some(fence) = self.of.get_mut(&partition) else {
            return;
        };
        if fence.barrier != Barrier::Awaited(position) {
            return;
        }
        // Another entry has its position if the log lost its end and grew again. The epoch of a partition alone
        // is not enough: an older leader may have chosen the same number.
        if accepted == Some(fence.epoch) {
            fence.barrier = Barrier::Accepted;
            fence.is_held = false;
        } else if fence.is_held {
            fence.barrier = Barrier::Missing;
        } else {
            fence.barrier = Barrier::Rejected;
        }
    }

    /// Barriers in the logs without an outcome.
    pub fn awaited(&self) -> impl Iterator<Item = (Partition, Position)> {
        self.of
            .iter()
            .filter_map(|(partition, fence)| match fence.barrier {
                Barrier::Awaited(position) => Some((*partition, position)),
                Barrier::Missing | Barrier::Appending | Barrier::Accepted | Barrier::Rejected => {
                    None
                }
            })
    }

    pub fn is_held(&self, partition: Partition) -> bool {
        self.of.get(&partition).is_some_and(|fence| fence.is_held)
    }

    pub fn held(&self) -> BTreeSet<Partition> {
        let held = self.of.iter().filter(|(_, fence)| fence.is_held);
        held.map(|(partition, _)| *partition).collect()
    }
}
