//! Lines of the checkpoint format.

use std::sync::Arc;

use nixfleet_proto::fleet::ResolvedBudget;
use nixfleet_proto::rollout::PinnedWave;
use nixfleet_proto::snapshot::{BlockRow, Cause, Cursor, ProbeFailureRow, QuarantineRow};
use nixfleet_proto::{
    HostRecord, ManifestHash, OnHealthFailure, Position, RolloutRecord, Timestamp,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Header {
    pub(crate) v: u32,
    pub(crate) partition: u16,
    pub(crate) cursor: Cursor,
    pub(crate) output_created: Timestamp,
    pub(crate) state_hash: String,
}

/// Any line after the header. The hosts of a rollout follow its line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Line {
    Rollout(RolloutLine),
    Host(HostLine),
    Quarantine(QuarantineRow),
    ProbeFailure(ProbeFailureRow),
    Block(BlockRow),
    /// The last line: number of the lines before it, without the header.
    End {
        lines: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RolloutLine {
    pub(crate) record: RolloutRecord,
    pub(crate) manifest_hash: ManifestHash,
    pub(crate) position: Position,
    pub(crate) on_health_failure: OnHealthFailure,
    pub(crate) waves: Vec<PinnedWave>,
    pub(crate) disruption_budgets: Vec<ResolvedBudget>,
    pub(crate) hosts: usize,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostLine {
    pub(crate) record: Arc<HostRecord>,
    pub(crate) wave: u32,
    pub(crate) staged: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) queued: Option<Cause>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) candidate: bool,
    pub(crate) position: Position,
}
