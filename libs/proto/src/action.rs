//! Actions of the planner.
//!
//! Source: docs/semantics.md, plan.

use serde::{Deserialize, Serialize};

use crate::id::{ChannelName, ChannelRef, ClosureHash, Hostname, ManifestHash, RolloutId};
use crate::internally_tagged::tagged_enum;
use crate::minutes::Minutes;
use crate::position::Position;

/// One decision of the planner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all_fields = "camelCase")]
#[expect(
    missing_docs,
    reason = "docs/semantics.md, plan actions, gives each field"
)]
pub enum PlanAction {
    /// Advances the current wave of a rollout whose current wave is done.
    AdvanceWave {
        rollout_id: RolloutId,
        from_wave: u32,
        to_wave: u32,
    },
    /// Completes a claim whose soak elapsed.
    SoakElapsed {
        hostname: Hostname,
        rollout_id: RolloutId,
    },
    /// Converges a Pending host that already runs its target.
    ConvergeUnchanged {
        hostname: Hostname,
        rollout_id: RolloutId,
        current_closure: ClosureHash,
    },
    /// Offers a host its target closure.
    QueueDispatch {
        hostname: Hostname,
        rollout_id: RolloutId,
        target_closure: ClosureHash,
        soak_minutes: Minutes,
    },
    /// Opens the rollout of a verified manifest; the hash names the manifest, which names the fleet.
    OpenRollout {
        rollout_id: RolloutId,
        channel: ChannelName,
        target_ref: ChannelRef,
        manifest_hash: ManifestHash,
    },
    /// Ends a superseded rollout whose retention elapsed.
    RetentionExpired { rollout_id: RolloutId },
    /// Replaces the holds of one gate in one wave of a rollout.
    BlocksChanged {
        rollout_id: RolloutId,
        wave: u32,
        gate: Gate,
        holds: Vec<Hold>,
    },
    /// Fences older leaders out of a partition.
    Barrier {},
}
tagged_enum!(PlanAction, "action");

impl PlanAction {
    /// Name of the action, as logged and counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AdvanceWave { .. } => "AdvanceWave",
            Self::SoakElapsed { .. } => "SoakElapsed",
            Self::ConvergeUnchanged { .. } => "ConvergeUnchanged",
            Self::QueueDispatch { .. } => "QueueDispatch",
            Self::OpenRollout { .. } => "OpenRollout",
            Self::RetentionExpired { .. } => "RetentionExpired",
            Self::BlocksChanged { .. } => "BlocksChanged",
            Self::Barrier {} => "Barrier",
        }
    }

    /// The affected rollout; a barrier concerns a whole partition.
    pub fn rollout_id(&self) -> Option<&RolloutId> {
        match self {
            Self::AdvanceWave { rollout_id, .. }
            | Self::SoakElapsed { rollout_id, .. }
            | Self::ConvergeUnchanged { rollout_id, .. }
            | Self::QueueDispatch { rollout_id, .. }
            | Self::OpenRollout { rollout_id, .. }
            | Self::RetentionExpired { rollout_id }
            | Self::BlocksChanged { rollout_id, .. } => Some(rollout_id),
            Self::Barrier {} => None,
        }
    }

    /// The affected host, for actions on one host.
    pub fn hostname(&self) -> Option<&Hostname> {
        match self {
            Self::SoakElapsed { hostname, .. }
            | Self::ConvergeUnchanged { hostname, .. }
            | Self::QueueDispatch { hostname, .. } => Some(hostname),
            Self::AdvanceWave { .. }
            | Self::OpenRollout { .. }
            | Self::RetentionExpired { .. }
            | Self::BlocksChanged { .. }
            | Self::Barrier {} => None,
        }
    }
}

/// Why a host is held; the order is the order of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// The target closure is quarantined on the channel.
    Quarantine,
    /// The rollout is halted.
    Halt,
    /// The channel's manifest is too old.
    Freshness,
    /// A predecessor channel has not finished.
    ChannelEdges,
    /// The host's wave has not come.
    WavePromotion,
    /// The host is in no wave of a channel that declares waves.
    WavePromotionHostUnstaged,
    /// Another host goes first.
    HostEdge,
    /// Too many hosts in flight.
    DisruptionBudget,
    /// Earlier waves have outstanding compliance failures.
    ComplianceWave,
}

impl Gate {
    /// Every gate, in record order.
    pub const ALL: [Self; 9] = [
        Self::Quarantine,
        Self::Halt,
        Self::Freshness,
        Self::ChannelEdges,
        Self::WavePromotion,
        Self::WavePromotionHostUnstaged,
        Self::HostEdge,
        Self::DisruptionBudget,
        Self::ComplianceWave,
    ];

    /// The name in logs, metrics and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::Halt => "halt",
            Self::Freshness => "freshness",
            Self::ChannelEdges => "channel-edges",
            Self::WavePromotion => "wave-promotion",
            Self::WavePromotionHostUnstaged => "wave-promotion-host-unstaged",
            Self::HostEdge => "host-edge",
            Self::DisruptionBudget => "disruption-budget",
            Self::ComplianceWave => "compliance-wave",
        }
    }
}

/// Hosts held by one gate for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Text for people.
    pub reason: String,
    /// The hosts; absent means every Pending host of the wave. A hold applies only to hosts that are
    /// Pending without a queued dispatch; readers ignore it for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<Hostname>>,
    /// The entry that caused it, when there is one in this partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Position>,
}
