//! The record of one rollout, and the terms pinned when it opens.
//!
//! Source: docs/semantics.md, rollout machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::fleet::ResolvedBudget;
use crate::host::{HostRecord, HostState, NewHost};
use crate::id::{ChannelName, ChannelRef, ClosureHash, Hostname, ManifestHash, RolloutId};
use crate::internally_tagged::tagged_enum;
use crate::json;
use crate::minutes::Minutes;
use crate::on_health_failure::OnHealthFailure;
use crate::time;

/// State of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RolloutState {
    /// Created, no host joined yet.
    Opening,
    /// The current wave is in progress.
    Active,
    /// The current wave is done, later waves remain.
    Converging,
    /// Every host converged or is waived.
    Terminal,
    /// A host rolled back to its previous closure.
    Reverted,
    /// A host failed and will not roll back.
    Failed,
    /// A newer rollout opened on the channel.
    Superseded,
    /// Retention elapsed.
    Pruned,
}

impl RolloutState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Opening,
        Self::Active,
        Self::Converging,
        Self::Terminal,
        Self::Reverted,
        Self::Failed,
        Self::Superseded,
        Self::Pruned,
    ];

    /// The name in records and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opening => "Opening",
            Self::Active => "Active",
            Self::Converging => "Converging",
            Self::Terminal => "Terminal",
            Self::Reverted => "Reverted",
            Self::Failed => "Failed",
            Self::Superseded => "Superseded",
            Self::Pruned => "Pruned",
        }
    }

    /// True in the final states, in which nothing is dispatched.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Terminal | Self::Failed | Self::Reverted | Self::Superseded | Self::Pruned
        )
    }

    /// True in the states that halt a rollout.
    pub fn is_halted(self) -> bool {
        matches!(self, Self::Failed | Self::Reverted)
    }

    /// True in Active and Converging.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Active | Self::Converging)
    }
}

/// Whether a host that became `Failed` will report a rollback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rollback {
    /// The applied policy rolls back, and the previous closure is known.
    Expected,
    /// No rollback follows.
    None,
}

/// The record of one rollout. [`Pinned`] has the terms that never change after opening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "stamps and keys say what they are")]
pub struct RolloutRecord {
    pub rollout_id: RolloutId,
    pub channel: ChannelName,
    pub target_ref: ChannelRef,
    pub state: RolloutState,
    /// Zero-based; never decreases.
    pub current_wave: u32,
    #[serde(with = "time")]
    pub opened_at: Timestamp,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub terminal_at: Option<Timestamp>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub superseded_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<RolloutId>,
    /// Hosts waived by an operator; they count as done and block no wave.
    #[serde(
        default,
        deserialize_with = "json::null_as_default",
        skip_serializing_if = "BTreeSet::is_empty"
    )]
    pub waived_hosts: BTreeSet<Hostname>,
}

/// The terms of a rollout, fixed when it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    /// Policy for failing hosts.
    pub on_health_failure: OnHealthFailure,
    /// The waves in order.
    pub waves: Vec<PinnedWave>,
    /// The hosts, sorted by name.
    pub host_set: Vec<PinnedHost>,
    /// Budgets with their resolved hosts.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub disruption_budgets: Vec<ResolvedBudget>,
}

/// The terms that a manifest pins, and the only rollout that the fold opens with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedManifest {
    /// The channel and ref that the manifest names.
    pub rollout_id: RolloutId,
    /// The pinned terms.
    pub pinned: Arc<Pinned>,
}

/// Pinned terms by manifest hash.
pub type PinnedSet = BTreeMap<ManifestHash, PinnedManifest>;

/// One wave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedWave {
    /// Minutes a host of this wave soaks after activation.
    pub soak_minutes: Minutes,
}

/// One host of the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedHost {
    /// Its name.
    pub hostname: Hostname,
    /// Zero-based wave.
    pub wave_index: u32,
    /// The closure to run.
    pub target_closure: ClosureHash,
    /// False for a host in no wave of a channel that declares waves: it is never dispatched and
    /// belongs to no wave.
    #[serde(default = "default_staged")]
    pub staged: bool,
}

fn default_staged() -> bool {
    true
}

impl Pinned {
    /// Soak minutes of a wave; 0 beyond the declared waves, which admission refuses.
    pub fn soak_minutes(&self, wave_index: u32) -> Minutes {
        self.waves
            .get(wave_index as usize)
            .map_or(Minutes::ZERO, |wave| wave.soak_minutes)
    }

    /// The Pending records of all hosts of a rollout that opened at `at`.
    pub fn pending_hosts<'a>(
        &'a self,
        rollout_id: &'a RolloutId,
        at: Timestamp,
    ) -> impl Iterator<Item = HostRecord> + 'a {
        let channel = rollout_id.channel();
        self.host_set.iter().map(move |host| {
            HostRecord::pending(NewHost {
                rollout_id: rollout_id.clone(),
                hostname: host.hostname.clone(),
                channel: channel.clone(),
                target_closure: host.target_closure.clone(),
                soak_minutes: self.soak_minutes(host.wave_index),
                dispatched_at: at,
            })
        })
    }
}

/// Events of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all_fields = "camelCase")]
#[expect(
    missing_docs,
    reason = "docs/semantics.md, rollout events, gives each field"
)]
pub enum RolloutEvent {
    RolloutOpened {
        rollout_id: RolloutId,
        channel: ChannelName,
        target_ref: ChannelRef,
        #[serde(with = "time")]
        at: Timestamp,
    },
    /// All hosts of the set joined at once.
    HostJoined {
        rollout_id: RolloutId,
        #[serde(with = "time")]
        at: Timestamp,
    },
    HostStateChanged {
        rollout_id: RolloutId,
        hostname: Hostname,
        from: HostState,
        to: HostState,
        /// Present when `to` is `Failed`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rollback: Option<Rollback>,
        #[serde(with = "time")]
        at: Timestamp,
    },
    WaveAdvanced {
        rollout_id: RolloutId,
        from_wave: u32,
        to_wave: u32,
        #[serde(with = "time")]
        at: Timestamp,
    },
    RolloutTerminal {
        rollout_id: RolloutId,
        #[serde(with = "time")]
        at: Timestamp,
    },
    SuccessorOpened {
        superseded_rollout_id: RolloutId,
        successor_rollout_id: RolloutId,
        #[serde(with = "time")]
        at: Timestamp,
    },
    RetentionExpired {
        rollout_id: RolloutId,
        #[serde(with = "time")]
        at: Timestamp,
    },
    OperatorClearance {
        rollout_id: RolloutId,
        operator: String,
        reason: String,
        #[serde(default, deserialize_with = "json::null_as_default")]
        waived_hosts: BTreeSet<Hostname>,
        #[serde(with = "time")]
        at: Timestamp,
    },
}
tagged_enum!(RolloutEvent, "kind");

impl RolloutEvent {
    /// Every kind, in the order of the documentation.
    pub const KINDS: [&'static str; 8] = [
        "RolloutOpened",
        "HostJoined",
        "HostStateChanged",
        "WaveAdvanced",
        "RolloutTerminal",
        "SuccessorOpened",
        "RetentionExpired",
        "OperatorClearance",
    ];

    /// Name of the kind, as logged.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RolloutOpened { .. } => "RolloutOpened",
            Self::HostJoined { .. } => "HostJoined",
            Self::HostStateChanged { .. } => "HostStateChanged",
            Self::WaveAdvanced { .. } => "WaveAdvanced",
            Self::RolloutTerminal { .. } => "RolloutTerminal",
            Self::SuccessorOpened { .. } => "SuccessorOpened",
            Self::RetentionExpired { .. } => "RetentionExpired",
            Self::OperatorClearance { .. } => "OperatorClearance",
        }
    }
}
