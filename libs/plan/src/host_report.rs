//! Why a host is not done: who holds it, or what it waits for.

use nixfleet_proto::{Gate, Hostname, RolloutId};
use serde::Serialize;

use crate::gates::Block;
use crate::wait_reason::WaitReason;

/// One line of a report: a host that is held or undecided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// The host.
    pub hostname: Hostname,
    /// Its rollout.
    pub rollout_id: RolloutId,
    /// Every gate that holds it, in gate order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockReport>,
    /// What it waits for, when nothing holds it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitReason>,
}

/// One reason, as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockReport {
    /// The gate.
    pub gate: Gate,
    /// Text for people.
    pub reason: String,
}

impl From<&Block> for BlockReport {
    fn from(block: &Block) -> Self {
        Self {
            gate: block.gate,
            reason: block.reason.clone(),
        }
    }
}
