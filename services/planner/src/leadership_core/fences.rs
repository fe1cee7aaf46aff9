//! The fences of a leader: one barrier per partition, each with its epoch. A partition that takes no barrier is
//! held: the leader plans nothing there and leads the others.

use std::collections::BTreeMap;

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

/// Why nothing is planned in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldReason {
    /// The input log refused an entry: it is full, or the entry is larger than a frame.
    Refused,
    /// The input log cannot be reached, and what it holds is unknown.
    Unavailable,
    /// A barrier is in the input log and has no outcome.
    Unfolded,
    /// The output log holds a message that is no frame, so the view of the partition ends in front of it.
    Unreadable,
}

/// Most rounds that a barrier waits: with a round every 2 s, as long as the outcome of an action is waited for.
const ROUNDS_MAX: u32 = 150;

#[derive(Debug)]
pub(super) struct Fences {
    /// Highest epoch so far; 0 before the first barrier.
    epoch: u64,
    of: BTreeMap<Partition, Fence>,
}

#[derive(Debug)]
struct Fence {
    /// Epoch of the newest barrier. Only its outcome counts: between two barriers another leader may have planned.
    epoch: u64,
    barrier: Barrier,
    held: Option<HoldReason>,
    /// Rounds that the barrier has waited for its outcome, and those after which it is followed by another one.
    rounds: Rounds,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rounds {
    waited: u32,
    limit: u32,
}

impl Fence {
    fn is_held(&self) -> bool {
        self.held.is_some()
    }

    fn is_unreadable(&self) -> bool {
        self.held == Some(HoldReason::Unreadable)
    }

    /// Whether another barrier is due in this round. While one is in the log, the pauses double, so that an owner
    /// which needs longer than a round answers the newest one.
    fn is_due(&mut self) -> bool {
        if !self.is_held() || self.is_unreadable() {
            return false;
        }
        match self.barrier {
            Barrier::Missing => true,
            Barrier::Awaited(_) if self.rounds.waited < self.rounds.limit => {
                self.rounds.waited += 1;
                false
            }
            Barrier::Awaited(_) => {
                let limit = (self.rounds.limit * 2).clamp(1, ROUNDS_MAX);
                self.rounds = Rounds { waited: 0, limit };
                true
            }
            Barrier::Appending | Barrier::Accepted | Barrier::Rejected => false,
        }
    }
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
            held: None,
            rounds: Rounds::default(),
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
        let led = || self.of.values().filter(|fence| !fence.is_held());
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

    /// Begins a higher epoch in every partition that can be read, and leads none of them before its barrier is
    /// accepted.
    pub fn begin(&mut self, now: Timestamp, highest: u64) -> Vec<Partition> {
        let readable = self.of.iter().filter(|(_, fence)| !fence.is_unreadable());
        let partitions: Vec<_> = readable.map(|(partition, _)| *partition).collect();
        self.begin_in(&partitions, now, highest);
        for partition in &partitions {
            if let Some(fence) = self.of.get_mut(partition) {
                (fence.held, fence.rounds) = (None, Rounds::default());
            }
        }
        partitions
    }

    /// Begins a round for the held partitions: a higher epoch in those whose barrier is missing, or has waited long
    /// enough for its outcome.
    pub fn begin_held(&mut self, now: Timestamp, highest: u64) -> Vec<Partition> {
        let due = self
            .of
            .iter_mut()
            .filter_map(|(partition, fence)| fence.is_due().then_some(*partition));
        let due: Vec<_> = due.collect();
        if !due.is_empty() {
            self.begin_in(&due, now, highest);
        }
        due
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
        let fence = self.of.get_mut(&partition);
        if let Some(fence) = fence.filter(|fence| !fence.is_unreadable()) {
            fence.barrier = Barrier::Awaited(position);
            if fence.is_held() {
                fence.held = Some(HoldReason::Unfolded);
            }
        }
    }

    /// What this leader appended before may be folded or not: only a new barrier tells. A partition that cannot be
    /// read stays so.
    pub fn hold(&mut self, partition: Partition, reason: HoldReason) {
        if let Some(fence) = self.of.get_mut(&partition).filter(|it| !it.is_unreadable()) {
            (fence.barrier, fence.rounds) = (Barrier::Missing, Rounds::default());
            fence.held = Some(reason);
        }
    }

    /// Leads the others meanwhile: the partition stays held until a barrier is answered.
    pub fn hold_awaited(&mut self, partition: Partition) {
        if let Some(fence) = self.of.get_mut(&partition) {
            fence.held = Some(HoldReason::Unfolded);
        }
    }

    /// Whether every partition is held because this leader cannot write or read it.
    pub fn is_cut_off(&self) -> bool {
        self.of.values().all(|fence| match fence.held {
            Some(HoldReason::Unavailable | HoldReason::Unreadable) => true,
            None | Some(HoldReason::Refused | HoldReason::Unfolded) => false,
        })
    }

    /// Takes the outcome at a position; `accepted` is the epoch of an accepted barrier.
    pub fn answered(&mut self, partition: Partition, position: Position, accepted: Option<u64>) {
        let Some(fence) = self.of.get_mut(&partition) else {
            return;
        };
        if fence.barrier != Barrier::Awaited(position) {
            return;
        }
        fence.rounds = Rounds::default();
        // Another entry has its position if the log lost its end and grew again. The epoch of a partition alone
        // is not enough: an older leader may have chosen the same number.
        if accepted == Some(fence.epoch) {
            (fence.barrier, fence.held) = (Barrier::Accepted, None);
        } else if fence.is_held() {
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
        self.of.get(&partition).is_some_and(Fence::is_held)
    }

    pub fn held(&self) -> BTreeMap<Partition, HoldReason> {
        let held = self.of.iter();
        held.filter_map(|(partition, fence)| Some((*partition, fence.held?)))
            .collect()
    }
}
