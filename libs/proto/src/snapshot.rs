//! The state of one partition as rows, which the store loads and the fold restores.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::action::{Gate, Hold};
use crate::checkpoint::Checkpoints;
use crate::frame::OutputFrame;
use crate::host::{FailedControl, HostRecord};
use crate::id::{ChannelName, ClosureHash, Hostname, ManifestHash, ProbeName, RolloutId};
use crate::position::{InputMark, Position};
use crate::rollout::{Pinned, RolloutRecord};
use crate::subject::{Names, Partition};
use crate::time;

/// Everything the applier has written for one partition, read in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionSnapshot {
    /// Cursor of the rows; absent before the first turn.
    pub cursor: Option<Cursor>,
    /// Rollouts, any state.
    pub rollouts: Vec<RolloutRow>,
    /// Host records, any state.
    pub hosts: Vec<HostRow>,
    /// Quarantined closures.
    pub quarantines: Vec<QuarantineRow>,
    /// Outstanding probe failures.
    pub probe_failures: Vec<ProbeFailureRow>,
    /// Current holds.
    pub blocks: Vec<BlockRow>,
}

/// Position of the rows in both logs of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cursor {
    /// Last applied sequence of the output stream.
    pub out_seq: u64,
    /// Last input the rows cover; absent before the first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputMark>,
    /// Message id of the input message at `input`; detects a replaced log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_msg_id: Option<String>,
    /// Creation time of the input stream; detects a replaced log as well.
    pub stream_created: Timestamp,
    /// Epoch of the owner that wrote the last frame.
    pub epoch: u64,
    /// Highest planner epoch seen.
    pub leader_epoch: u64,
    /// Fold time after the last entry; absent before the first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Timestamp>,
    /// Origin of the rows.
    #[serde(default)]
    pub origin: Origin,
    /// Checkpoints announced up to the last applied frame.
    #[serde(default, skip_serializing_if = "Checkpoints::is_empty")]
    pub checkpoints: Checkpoints,
}

impl Cursor {
    /// A cursor before the first entry of logs whose input stream was created at this time.
    pub fn empty(stream_created: Timestamp) -> Self {
        Self {
            out_seq: 0,
            input: None,
            input_msg_id: None,
            stream_created,
            epoch: 0,
            leader_epoch: 0,
            clock: None,
            origin: Origin::default(),
            checkpoints: Checkpoints::default(),
        }
    }

    /// The last sequence of each log that the rows cover, by stream.
    pub fn covered(
        &self,
        names: &Names,
        partition: Partition,
    ) -> impl Iterator<Item = (String, u64)> {
        let output = (names.output_stream(partition), self.out_seq);
        let input = self
            .input
            .map(|mark| (names.input_stream(partition), mark.seq));
        std::iter::once(output).chain(input)
    }
}

/// The first frames that two states of a partition were built from: the local state, and the state of
/// the owner that wrote the log. They differ when a reader starts from an empty state in a trimmed log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Origin {
    /// First output sequence that the local state was built from; 1 when it is complete.
    pub own: u64,
    /// The same of the owner's state, from its last frame with `rebuiltFrom`.
    pub owner: u64,
}

impl Default for Origin {
    fn default() -> Self {
        Self { own: 1, owner: 1 }
    }
}

/// The owner rebuilt its state from later frames than the local state: its frames do not continue the
/// local state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the owner rebuilt its state from output sequence {owner} on, but the local state begins at {own} \
     and has more: follow docs/operations/recovery-log-trimmed.md"
)]
pub struct OriginConflict {
    /// First output sequence of the local state.
    pub own: u64,
    /// First output sequence of the owner's state.
    pub owner: u64,
}

impl Origin {
    /// A state that is built from a log which begins at this sequence.
    pub fn of_log(first_seq: u64) -> Self {
        Self {
            own: first_seq.max(1),
            owner: 1,
        }
    }

    /// Follows the next frame of the log. Afterwards [`Origin::is_partial`] applies to that frame's
    /// outcomes.
    ///
    /// # Errors
    /// [`OriginConflict`] when the frame has outcomes that do not continue this state.
    pub fn follow(&mut self, frame: &OutputFrame) -> Result<(), OriginConflict> {
        if let Some(from) = frame.rebuilt_from {
            self.owner = from;
        }
        if frame.outcomes.is_empty() || self.owner <= self.own {
            return Ok(());
        }
        let Self { own, owner } = *self;
        Err(OriginConflict { own, owner })
    }

    /// True when this state lacks rollouts that the owner has: readers skip the changes of those
    /// rollouts, and state hashes differ.
    pub fn is_partial(self) -> bool {
        self.own > self.owner
    }

    /// Value of `rebuiltFrom` in the barrier of a takeover with this state.
    pub fn rebuilt_from(self) -> Option<u64> {
        (self.own > 1 || self.owner > 1).then_some(self.own)
    }
}

/// The causing entry of a row, and its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Position of the entry in the input log.
    pub position: Position,
    /// Fold time after the entry, or the host's time of an observation; in microseconds, as in columns,
    /// except for queued dispatches.
    #[serde(with = "time")]
    pub at: Timestamp,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRow {
    /// The record.
    pub record: RolloutRecord,
    /// The manifest it was opened with.
    pub manifest_hash: ManifestHash,
    /// The pinned terms, when the rows have them: the artifact is not needed then.
    pub pinned: Option<Arc<Pinned>>,
    /// The entry that last changed it.
    pub position: Position,
}

/// One host in one rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// The record.
    pub record: Arc<HostRecord>,
    /// The queued dispatch.
    pub queued: Option<Cause>,
    /// The running closure of a Pending host, when it is the target.
    pub recovery_candidate: Option<ClosureHash>,
    /// The entry that last changed it.
    pub position: Position,
}

/// One quarantined closure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineRow {
    /// The channel it is quarantined on.
    pub channel: ChannelName,
    /// The closure.
    pub closure_hash: ClosureHash,
    /// The entry that caused it.
    pub cause: Cause,
}

/// One outstanding failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeFailureRow {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// The host.
    pub hostname: Hostname,
    /// The probe.
    pub probe_name: ProbeName,
    /// The control, or the probe itself.
    pub control: FailedControl,
    /// The entry that reported it, and when the host observed it.
    pub cause: Cause,
}

/// The holds of one gate in one wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockRow {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// The wave.
    pub wave: u32,
    /// The gate.
    pub gate: Gate,
    /// The holds.
    pub holds: Vec<Hold>,
    /// The causing entry.
    pub cause: Cause,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Decision, Outcome, OutcomeSubject};
    use crate::{Reason, Rejection};

    fn marker(from: Option<u64>) -> OutputFrame {
        OutputFrame {
            rebuilt_from: from,
            ..OutputFrame::new(1)
        }
    }

    fn outcomes() -> OutputFrame {
        let outcome = Outcome {
            position: Position::default(),
            at: Timestamp::UNIX_EPOCH,
            subject: OutcomeSubject {
                entry: "Barrier".into(),
                event: None,
                producer: None,
                rollout_id: None,
                hostname: None,
                actor: None,
            },
            traceparent: None,
            decision: Decision::Rejected(Rejection::new(Reason::Fenced, "old")),
        };
        OutputFrame {
            outcomes: vec![outcome],
            ..OutputFrame::new(1)
        }
    }

    #[test]
    fn a_rebuilt_state_is_partial_until_an_owner_continues_it() {
        let mut origin = Origin::of_log(5);
        assert_eq!(origin.follow(&outcomes()), Ok(()));
        assert!(origin.is_partial());
        // Another rebuild, from an earlier frame.
        assert_eq!(origin.follow(&marker(Some(3))), Ok(()));
        assert!(origin.is_partial());
        assert_eq!(origin.follow(&marker(origin.rebuilt_from())), Ok(()));
        assert!(!origin.is_partial());
        assert_eq!(origin.rebuilt_from(), Some(5));
    }

    #[test]
    fn a_complete_state_has_no_marker_and_does_not_continue_a_rebuilt_one() {
        let mut origin = Origin::default();
        assert_eq!(origin.rebuilt_from(), None);
        assert_eq!(origin.follow(&marker(Some(5))), Ok(()));
        assert_eq!(
            origin.follow(&outcomes()),
            Err(OriginConflict { own: 1, owner: 5 })
        );
        // A takeover with the complete state resolves the conflict.
        assert_eq!(origin.rebuilt_from(), Some(1));
        assert_eq!(origin.follow(&marker(Some(1))), Ok(()));
        assert_eq!(origin.follow(&outcomes()), Ok(()));
    }
}
