//! The state of one partition as rows: what the store loads and the fold starts from.

use crate::Timestamp;
use crate::action::{Gate, Hold};
use crate::entry::Position;
use crate::frame::InputMark;
use crate::host::{FailedControl, HostRecord};
use crate::id::{ChannelName, ClosureHash, Hostname, ManifestHash, ProbeName, RolloutId};
use crate::rollout::RolloutRecord;

/// Everything the applier has written for one partition, read in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionSnapshot {
    /// Where the rows stand; absent when nothing was ever applied.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Last applied sequence of the output stream.
    pub out_seq: u64,
    /// Last input the rows cover; absent before the first entry.
    pub input: Option<InputMark>,
    /// Message id of the input message at `input`, the guard against a log that was replaced.
    pub input_msg_id: Option<String>,
    /// When the input stream was created, the other half of the guard.
    pub stream_created: Timestamp,
    /// Epoch of the owner that wrote the last frame.
    pub epoch: u64,
    /// Highest planner epoch seen.
    pub leader_epoch: u64,
    /// Fold time after the last entry; absent before the first entry.
    pub clock: Option<Timestamp>,
}

/// One rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRow {
    /// The record.
    pub record: RolloutRecord,
    /// The manifest it was opened with.
    pub manifest_hash: ManifestHash,
    /// The entry that last changed it.
    pub position: Position,
}

/// One host in one rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// The record.
    pub record: HostRecord,
    /// When a dispatch was queued that still waits.
    pub queued_at: Option<Timestamp>,
    /// The closure a Pending host was seen running, when that is its target.
    pub recovery_candidate: Option<ClosureHash>,
    /// The entry that last changed it.
    pub position: Position,
}

/// One quarantined closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineRow {
    /// The channel it is quarantined on.
    pub channel: ChannelName,
    /// The closure.
    pub closure_hash: ClosureHash,
    /// The entry that caused it.
    pub position: Position,
}

/// One outstanding failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFailureRow {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// The host.
    pub hostname: Hostname,
    /// The probe.
    pub probe_name: ProbeName,
    /// The control, or the probe itself.
    pub control: FailedControl,
    /// The entry that caused it.
    pub position: Position,
}

/// The holds of one gate in one wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRow {
    /// The rollout.
    pub rollout_id: RolloutId,
    /// The wave.
    pub wave: u32,
    /// The gate.
    pub gate: Gate,
    /// Who is held and why.
    pub holds: Vec<Hold>,
    /// The entry that stated it.
    pub position: Position,
}
