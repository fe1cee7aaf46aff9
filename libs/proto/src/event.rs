//! Host events: the thirteen kinds of reports of an agent.
//!
//! Source: docs/wire-protocol.md, events.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::host::{ProbeDeclaration, ProbeMode, ProbeStatus};
use crate::id::{ClosureHash, ProbeName};
use crate::internally_tagged::tagged_enum;
use crate::json;
use crate::on_health_failure::OnHealthFailure;
use crate::rollback_fault::RollbackFault;
use crate::time;

/// One report of one host about one rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostEvent {
    /// Number of the event in its (host, rollout) pair; the first is 1.
    pub seq: u64,
    /// What happened.
    pub body: HostEventBody,
}

/// The thirteen event kinds with their fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all_fields = "camelCase")]
#[expect(
    missing_docs,
    reason = "the field names are those of docs/wire-protocol.md, events"
)]
pub enum HostEventBody {
    DispatchAck {
        current_closure_at_dispatch: ClosureHash,
        #[serde(with = "time")]
        received_at: Timestamp,
    },
    ActivationStarted {
        #[serde(with = "time")]
        started_at: Timestamp,
        switch_method: String,
    },
    ActivationCompleted {
        observed_current_closure: ClosureHash,
        exit_code: i32,
        #[serde(with = "time")]
        completed_at: Timestamp,
    },
    ActivationDeferred {
        component: String,
        #[serde(with = "time")]
        deferred_at: Timestamp,
    },
    ActivationFailed {
        exit_code: i32,
        stderr_tail: String,
        #[serde(with = "time")]
        failed_at: Timestamp,
    },
    ProbeTopologyDeclared {
        probes: Vec<ProbeDeclaration>,
        #[serde(with = "time")]
        declared_at: Timestamp,
    },
    ProbeObservedFirst {
        probe_name: ProbeName,
        mode: ProbeMode,
        #[serde(with = "time")]
        observed_at: Timestamp,
    },
    ProbeResult {
        probe_name: ProbeName,
        mode: ProbeMode,
        status: ProbeStatus,
        #[serde(with = "time")]
        observed_at: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure_reason: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sub_results: Option<Vec<SubResult>>,
    },
    ProbeFailureFirst {
        probe_name: ProbeName,
        mode: ProbeMode,
        #[serde(with = "time")]
        first_failed_at: Timestamp,
    },
    Failed {
        #[serde(with = "time")]
        failed_at: Timestamp,
        sustained_duration_secs: u64,
        failing_probes: Vec<ProbeName>,
        policy_applied: OnHealthFailure,
    },
    RollbackComplete {
        reverted_to_closure: ClosureHash,
        exit_code: i32,
        #[serde(with = "time")]
        completed_at: Timestamp,
    },
    RollbackFailed {
        reason: RollbackFault,
        detail: String,
        #[serde(with = "time")]
        failed_at: Timestamp,
    },
    Converged {
        #[serde(with = "time")]
        converged_at: Timestamp,
        current_closure: ClosureHash,
    },
}
tagged_enum!(HostEventBody, "kind");

/// One control of an evidence probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubResult {
    /// Identifier of the control in its framework.
    pub control_id: String,
    /// Result of the control.
    pub status: ProbeStatus,
    /// Name of the compliance framework.
    pub framework: String,
    /// Article of the framework, when the control maps to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub article: Option<String>,
    /// Mode of this control after overrides; `enforce` when absent.
    #[serde(default, deserialize_with = "json::null_as_default")]
    pub effective_mode: ProbeMode,
    /// Why the mode differs from the declared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_reason: Option<String>,
}

impl HostEventBody {
    /// Every kind, in the order of the documentation.
    pub const KINDS: [&'static str; 13] = [
        "DispatchAck",
        "ActivationStarted",
        "ActivationCompleted",
        "ActivationDeferred",
        "ActivationFailed",
        "ProbeTopologyDeclared",
        "ProbeObservedFirst",
        "ProbeResult",
        "ProbeFailureFirst",
        "Failed",
        "RollbackComplete",
        "RollbackFailed",
        "Converged",
    ];

    /// Name of the kind, as on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DispatchAck { .. } => "DispatchAck",
            Self::ActivationStarted { .. } => "ActivationStarted",
            Self::ActivationCompleted { .. } => "ActivationCompleted",
            Self::ActivationDeferred { .. } => "ActivationDeferred",
            Self::ActivationFailed { .. } => "ActivationFailed",
            Self::ProbeTopologyDeclared { .. } => "ProbeTopologyDeclared",
            Self::ProbeObservedFirst { .. } => "ProbeObservedFirst",
            Self::ProbeResult { .. } => "ProbeResult",
            Self::ProbeFailureFirst { .. } => "ProbeFailureFirst",
            Self::Failed { .. } => "Failed",
            Self::RollbackComplete { .. } => "RollbackComplete",
            Self::RollbackFailed { .. } => "RollbackFailed",
            Self::Converged { .. } => "Converged",
        }
    }

    /// Time of the event, by the host's clock.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::DispatchAck {
                received_at: at, ..
            }
            | Self::ActivationStarted { started_at: at, .. }
            | Self::ActivationCompleted {
                completed_at: at, ..
            }
            | Self::ActivationDeferred {
                deferred_at: at, ..
            }
            | Self::ActivationFailed { failed_at: at, .. }
            | Self::ProbeTopologyDeclared {
                declared_at: at, ..
            }
            | Self::ProbeObservedFirst {
                observed_at: at, ..
            }
            | Self::ProbeResult {
                observed_at: at, ..
            }
            | Self::ProbeFailureFirst {
                first_failed_at: at,
                ..
            }
            | Self::Failed { failed_at: at, .. }
            | Self::RollbackFailed { failed_at: at, .. }
            | Self::RollbackComplete {
                completed_at: at, ..
            }
            | Self::Converged {
                converged_at: at, ..
            } => *at,
        }
    }
}
