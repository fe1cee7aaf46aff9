//! The record of one host in one rollout.
//!
//! Source: docs/semantics.md, host machine.

mod probes;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{ChannelName, ClosureHash, Hostname, RolloutId};
use crate::json;
use crate::minutes::Minutes;
use crate::on_health_failure::OnHealthFailure;
use crate::rollback_fault::RollbackFault;
use crate::time;

pub use probes::{FailedControl, ProbeDeclaration, ProbeMode, ProbeRecord, ProbeStatus, Probes};

/// State of a host in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HostState {
    /// Created with the rollout; no dispatch acknowledged.
    Pending,
    /// The agent acknowledged; the switch runs or is unconfirmed.
    Activating,
    /// Staged for the next boot; the live switch was skipped.
    Deferred,
    /// Activated; probes run and the soak window is open.
    Soaking,
    /// Soak elapsed, probes pass, on the target closure.
    Converged,
    /// Activation failed or an enforce probe kept failing.
    Failed,
    /// Rolled back to the closure from before the dispatch.
    Reverted,
}

impl HostState {
    /// Every state, in the order of the usual transitions.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Activating,
        Self::Deferred,
        Self::Soaking,
        Self::Converged,
        Self::Failed,
        Self::Reverted,
    ];

    /// The name in records and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Activating => "Activating",
            Self::Deferred => "Deferred",
            Self::Soaking => "Soaking",
            Self::Converged => "Converged",
            Self::Failed => "Failed",
            Self::Reverted => "Reverted",
        }
    }

    /// True while the host occupies a slot of its disruption budgets.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Activating | Self::Soaking)
    }

    /// True when the wave no longer waits for the host.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Converged | Self::Deferred)
    }

    /// True in the states that heartbeats may recover and snapshots carry.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            Self::Pending | Self::Activating | Self::Deferred | Self::Soaking | Self::Failed
        )
    }
}

/// A `Converged` report that could not complete yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConvergenceClaim {
    /// Reported time of convergence.
    #[serde(with = "time")]
    pub converged_at: Timestamp,
    /// Reported closure; always the target.
    pub current_closure: ClosureHash,
}

/// The record of one host in one rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    missing_docs,
    reason = "the stamps are named after the events that set them"
)]
pub struct HostRecord {
    pub rollout_id: RolloutId,
    pub hostname: Hostname,
    pub channel: ChannelName,
    pub state: HostState,
    /// From the rollout manifest; no transition changes it.
    pub target_closure: ClosureHash,
    /// Minutes, of the host's wave, pinned when the rollout opened.
    pub soak_minutes: Minutes,
    /// When the record was created, which is when the rollout opened.
    #[serde(with = "time")]
    pub dispatched_at: Timestamp,
    /// The closure that a rollback restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_closure_at_dispatch: Option<ClosureHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_closure: Option<ClosureHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted_to: Option<ClosureHash>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub dispatch_acked_at: Option<Timestamp>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub activation_started_at: Option<Timestamp>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub activation_completed_at: Option<Timestamp>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub activation_failed_at: Option<Timestamp>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub probe_observed_first_at: Option<Timestamp>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub probe_failure_first_at: Option<Timestamp>,
    /// Set when activation completes: completion time (clamped) plus the soak minutes.
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub soak_due_at: Option<Timestamp>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub converged_at: Option<Timestamp>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_applied: Option<OnHealthFailure>,
    /// Of a Failed host: why the rollback that its policy asks for will not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_failed: Option<RollbackFault>,
    #[serde(default, with = "time::maybe", skip_serializing_if = "Option::is_none")]
    pub reverted_at: Option<Timestamp>,
    /// Results since the last activation.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub probes: Probes,
    /// Absent: the topology was not declared since activation. An empty list is a declaration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared_probes: Option<Arc<[ProbeDeclaration]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence_claim: Option<Box<ConvergenceClaim>>,
    /// True when the host converged without a switch because it already ran its target.
    #[serde(
        default,
        deserialize_with = "json::null_as_default",
        skip_serializing_if = "json::is_false"
    )]
    pub unchanged: bool,
    /// Sequence of the last accepted agent event.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub last_event_seq: u64,
    /// Sequence of the last accepted recovery event.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub recovery_seq: u64,
}

/// The fields of a new record.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "same names and meanings as in `HostRecord`")]
pub struct NewHost {
    pub rollout_id: RolloutId,
    pub hostname: Hostname,
    pub channel: ChannelName,
    pub target_closure: ClosureHash,
    pub soak_minutes: Minutes,
    pub dispatched_at: Timestamp,
}

impl HostRecord {
    /// Key of the record: rollout and host.
    pub fn key(&self) -> (&RolloutId, &Hostname) {
        (&self.rollout_id, &self.hostname)
    }

    /// True for a Failed host whose rollback is still to come.
    ///
    /// Source: docs/semantics.md, rollout machine, failure.
    pub fn expects_rollback(&self) -> bool {
        self.state == HostState::Failed
            && self.policy_applied == Some(OnHealthFailure::RollbackAndHalt)
            && self.current_closure_at_dispatch.is_some()
            && self.rollback_failed.is_none()
    }

    /// A new record in `Pending`.
    pub fn pending(new: NewHost) -> Self {
        Self {
            rollout_id: new.rollout_id,
            hostname: new.hostname,
            channel: new.channel,
            state: HostState::Pending,
            target_closure: new.target_closure,
            soak_minutes: new.soak_minutes,
            dispatched_at: new.dispatched_at,
            current_closure_at_dispatch: None,
            current_closure: None,
            reverted_to: None,
            dispatch_acked_at: None,
            activation_started_at: None,
            activation_completed_at: None,
            activation_failed_at: None,
            probe_observed_first_at: None,
            probe_failure_first_at: None,
            soak_due_at: None,
            converged_at: None,
            failed_at: None,
            policy_applied: None,
            rollback_failed: None,
            reverted_at: None,
            probes: Probes::default(),
            declared_probes: None,
            convergence_claim: None,
            unchanged: false,
            last_event_seq: 0,
            recovery_seq: 0,
        }
    }
}
