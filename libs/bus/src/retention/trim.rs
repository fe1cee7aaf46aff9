//! How far a log may be trimmed; the only place that decides it.
//!
//! A message may be deleted when two checkpoints cover it, it is applied and archived, and it is older than
//! the margin for readers that lag.

use std::collections::VecDeque;
use std::time::Duration;

use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::{Checkpoints, mutation_testing};

use super::log_usage::LogUsage;

/// The margin takes at most this fraction of a log.
const MARGIN_DIVISOR: u64 = 16;
/// Trimming rewrites the first block of a log, so it waits until this fraction of the log can be deleted.
const TRIM_STEP_DIVISOR: u64 = 64;

/// Which log of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogKind {
    /// Entries that reducers fold.
    Input,
    /// Outcomes that reducers publish.
    Output,
}

/// Who still needs the oldest message of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogHolder {
    /// A takeover without rows: the last but one checkpoint does not cover the message.
    Checkpoint,
    /// The applier has not applied the message.
    Applier,
    /// The archive does not have the message.
    Archive,
    /// Readers that lag.
    Margin,
}

impl LogHolder {
    /// Every holder.
    pub const ALL: [Self; 4] = [Self::Checkpoint, Self::Applier, Self::Archive, Self::Margin];

    /// Name in metrics and responses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Applier => "applier",
            Self::Archive => "archive",
            Self::Margin => "margin",
        }
    }
}

/// First sequences of a log that are still needed; `None` where it is unknown, which keeps the whole log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NeededFrom {
    /// By a takeover from the last but one checkpoint.
    pub checkpoint: Option<u64>,
    /// By the applier.
    pub applied: Option<u64>,
    /// By the archive.
    pub archived: Option<u64>,
    /// By readers that lag.
    pub margin: u64,
}

impl NeededFrom {
    /// The needs according to tables and archive. `archived` is the last archived sequence of this
    /// generation of the stream.
    pub fn of(kind: LogKind, cursor: Option<&Cursor>, archived: Option<u64>, margin: u64) -> Self {
        let previous = cursor.and_then(|cursor| {
            let Checkpoints { last, previous } = &cursor.checkpoints;
            if mutation_testing::is_active("trim-by-newest-checkpoint") {
                return last.as_ref();
            }
            previous.as_ref()
        });
        let (checkpoint, applied) = match kind {
            LogKind::Input => (
                previous.map(|checkpoint| checkpoint.first_input()),
                // The last message that the rows cover identifies the log.
                cursor.and_then(|cursor| Some(cursor.input?.seq)),
            ),
            LogKind::Output => (
                previous.map(|checkpoint| checkpoint.next_output()),
                cursor.map(|cursor| cursor.out_seq + 1),
            ),
        };
        Self {
            checkpoint,
            applied,
            archived: if mutation_testing::is_active("trim-without-archive") {
                Some(margin)
            } else {
                archived.map(|seq| seq + 1)
            },
            margin,
        }
    }

    /// The first sequence that must stay, and its holder.
    pub fn first(&self) -> (u64, LogHolder) {
        let Self {
            checkpoint,
            applied,
            archived,
            margin,
        } = *self;
        let needs = [
            (checkpoint.unwrap_or(0), LogHolder::Checkpoint),
            (applied.unwrap_or(0), LogHolder::Applier),
            (archived.unwrap_or(0), LogHolder::Archive),
            (margin, LogHolder::Margin),
        ];
        needs
            .into_iter()
            .min()
            .unwrap_or((0, LogHolder::Checkpoint))
    }
}

/// Bounds of the margin for readers that lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarginLimits {
    /// Minimum age at which a message may be deleted.
    pub age: Duration,
    /// Most bytes of the margin, whatever their age.
    pub bytes: u64,
}

/// Newest messages of a log that stay for readers that lag.
#[derive(Debug, Clone)]
pub struct Margin {
    limits: MarginLimits,
    /// Last sequences at past times, oldest first; at most one of them is old enough.
    seen: VecDeque<(Duration, u64)>,
}

impl Margin {
    /// A margin without observations.
    pub fn new(limits: MarginLimits) -> Self {
        Self {
            limits,
            seen: VecDeque::new(),
        }
    }

    /// The first sequence that readers may still need. `now` is the monotonic time since this margin was
    /// created.
    pub fn first(&mut self, log: &LogUsage, now: Duration) -> u64 {
        let MarginLimits { age, bytes } = self.limits;
        self.seen.push_back((now, log.last_seq));
        let is_old = |at: &Duration| now.saturating_sub(*at) >= age;
        while self.seen.get(1).is_some_and(|(at, _)| is_old(at)) {
            self.seen.pop_front();
        }
        let old = self.seen.front().filter(|(at, _)| is_old(at));
        let by_age = old.map_or(0, |(_, seq)| seq + 1);
        let bytes = match log.max_bytes {
            0 => bytes,
            max => bytes.min(max / MARGIN_DIVISOR),
        };
        by_age.max(log.first_of_last(bytes))
    }
}

/// The first sequence to keep when the log is trimmed now; `None` when too little could be deleted.
pub fn trim_position(log: &LogUsage, first_needed: u64) -> Option<u64> {
    // The last message stays: writers and readers identify the log by it.
    let first_kept = first_needed.min(log.last_seq);
    let messages = first_kept.checked_sub(log.first_seq)?;
    let is_enough = log.bytes_of(messages) >= log.max_bytes / TRIM_STEP_DIVISOR;
    (messages > 0 && is_enough).then_some(first_kept)
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::{CheckpointRef, InputMark, Timestamp};

    use super::*;

    fn log(first_seq: u64, last_seq: u64, max_bytes: u64) -> LogUsage {
        let messages = last_seq + 1 - first_seq;
        LogUsage {
            created: Timestamp::UNIX_EPOCH,
            first_seq,
            last_seq,
            messages,
            bytes: messages * 10,
            max_bytes,
        }
    }

    fn mark(seq: u64) -> Option<InputMark> {
        Some(InputMark {
            seq,
            index: 0,
            of: 2,
        })
    }

    fn cursor(previous: Option<u64>) -> Cursor {
        let checkpoint = |seq: u64| CheckpointRef {
            hash: String::new(),
            bytes: 1,
            out_seq: seq,
            input: mark(seq * 2),
        };
        Cursor {
            out_seq: 50,
            input: mark(100),
            checkpoints: Checkpoints {
                last: Some(checkpoint(40)),
                previous: previous.map(checkpoint),
            },
            ..Cursor::empty(Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn the_first_needed_sequence_has_its_holder() {
        let needed = |archived, margin| {
            NeededFrom::of(LogKind::Output, Some(&cursor(Some(30))), archived, margin).first()
        };
        assert_eq!(needed(Some(60), 90), (31, LogHolder::Checkpoint));
        assert_eq!(needed(Some(20), 90), (21, LogHolder::Archive));
        assert_eq!(needed(Some(60), 10), (10, LogHolder::Margin));
        let behind = Cursor {
            out_seq: 25,
            ..cursor(Some(30))
        };
        let needed = NeededFrom::of(LogKind::Output, Some(&behind), Some(60), 90);
        assert_eq!(needed.first(), (26, LogHolder::Applier));
    }

    #[test]
    fn the_message_of_the_last_input_stays() {
        let needed = NeededFrom::of(LogKind::Input, Some(&cursor(Some(30))), Some(500), 500);
        assert_eq!(needed.first(), (60, LogHolder::Checkpoint));
        let needed = NeededFrom::of(LogKind::Input, Some(&cursor(Some(90))), Some(500), 500);
        assert_eq!(needed.first(), (100, LogHolder::Applier));
    }

    #[test]
    fn an_unknown_need_keeps_the_whole_log() {
        let one = cursor(None);
        for (cursor, archived, holder) in [
            (None, Some(60), LogHolder::Checkpoint),
            (Some(&one), Some(60), LogHolder::Checkpoint),
            (Some(&cursor(Some(30))), None, LogHolder::Archive),
        ] {
            let needed = NeededFrom::of(LogKind::Output, cursor, archived, 90);
            assert_eq!(needed.first(), (0, holder));
        }
    }

    #[test]
    fn a_message_stays_for_the_margin_age_within_the_margin_bytes() {
        let limits = MarginLimits {
            age: Duration::from_secs(60),
            bytes: 1_000,
        };
        let mut margin = Margin::new(limits);
        let at = Duration::from_secs;
        // 100 messages of 10 bytes fit into the margin.
        assert_eq!(margin.first(&log(1, 80, 0), at(0)), 1);
        assert_eq!(margin.first(&log(1, 90, 0), at(30)), 1);
        assert_eq!(margin.first(&log(1, 95, 0), at(60)), 81);
        assert_eq!(margin.first(&log(1, 95, 0), at(89)), 81);
        assert_eq!(margin.first(&log(1, 95, 0), at(90)), 91);
        assert_eq!(margin.first(&log(1, 1_000, 0), at(91)), 901);
        // A sixteenth of a small log.
        assert_eq!(margin.first(&log(1, 1_000, 1_600), at(91)), 991);
    }

    #[test]
    fn a_log_is_trimmed_in_steps_and_keeps_its_last_message() {
        for (first_needed, expected) in [
            (0, None),
            (1, None),
            (10, None),
            (11, Some(11)),
            (100, Some(100)),
            (101, Some(100)),
            (5_000, Some(100)),
        ] {
            assert_eq!(trim_position(&log(1, 100, 6_400), first_needed), expected);
        }
        let empty = LogUsage {
            messages: 0,
            bytes: 0,
            first_seq: 101,
            ..log(1, 100, 6_400)
        };
        assert_eq!(trim_position(&empty, 200), None);
    }
}
