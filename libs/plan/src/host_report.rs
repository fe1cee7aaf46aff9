//! Reports on unfinished hosts: blocks or wait reasons.

use nixfleet_proto::{Gate, Hostname, RolloutId};
use serde::Serialize;

use crate::awaited_step::AwaitedStep;
use crate::gates::Block;

/// Report on one host that is held or waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostReport {
    /// The host.
    pub hostname: Hostname,
    /// Its rollout.
    pub rollout_id: RolloutId,
    /// Blocks, in gate order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockReport>,
    /// Wait reasons, without blocks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<AwaitedStep>,
}

/// One block, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockReport {
    /// The gate.
    pub gate: Gate,
    /// Explanation for people.
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
