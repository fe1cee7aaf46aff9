//! What a host waits for that no gate holds.
//!
//! Source: docs/semantics.md, plan report.

use nixfleet_proto::host::ProbeRecord;
use nixfleet_proto::{
    HostRecord, HostState, OnHealthFailure, ProbeMode, ProbeName, ProbeStatus, Timestamp,
};
use serde::{Deserialize, Serialize};

/// What a host that no gate holds still waits for.
///
/// Source: docs/semantics.md, plan report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum WaitReason {
    /// A dispatch is queued; the agent has not taken it.
    Acknowledgement,
    /// The switch runs or is unconfirmed.
    Activation,
    /// Staged for the next boot.
    Reboot,
    /// The soak window is open until then.
    Soak {
        /// End of the window.
        due_at: Timestamp,
    },
    /// The agent has not said which probes it runs.
    ProbeTopology,
    /// Declared enforce probes without a pass since activation.
    Probe {
        /// Their names, as declared.
        probes: Vec<ProbeName>,
    },
    /// Everything holds; the agent has not said that it converged.
    Report,
    /// The host goes back to its previous closure.
    Rollback,
}

/// Whether a dispatch of the host is in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// A dispatch is queued and not acknowledged.
    Yes,
    /// None is.
    No,
}

/// What the host of a record waits for at `now`; empty for a finished host and for a Pending one that
/// only gates hold.
pub fn wait_reasons(record: &HostRecord, queued: Queued, now: Timestamp) -> Vec<WaitReason> {
    match record.state {
        HostState::Pending => match queued {
            Queued::Yes => vec![WaitReason::Acknowledgement],
            Queued::No => Vec::new(),
        },
        HostState::Activating => vec![WaitReason::Activation],
        HostState::Deferred => vec![WaitReason::Reboot],
        HostState::Soaking => soaking(record, now),
        HostState::Failed => failed(record),
        HostState::Converged | HostState::Reverted => Vec::new(),
    }
}

fn soaking(record: &HostRecord, now: Timestamp) -> Vec<WaitReason> {
    let mut waits = Vec::new();
    if let Some(due_at) = record.soak_due_at.filter(|due_at| *due_at > now) {
        waits.push(WaitReason::Soak { due_at });
    }
    if record.declared_probes.is_none() {
        waits.push(WaitReason::ProbeTopology);
    }
    let probes: Vec<_> = unpassed_probes(record).cloned().collect();
    if !probes.is_empty() {
        waits.push(WaitReason::Probe { probes });
    }
    if waits.is_empty() && record.convergence_claim.is_none() {
        waits.push(WaitReason::Report);
    }
    waits
}

fn failed(record: &HostRecord) -> Vec<WaitReason> {
    let rolls_back = record.policy_applied == Some(OnHealthFailure::RollbackAndHalt)
        && record.current_closure_at_dispatch.is_some();
    if rolls_back {
        vec![WaitReason::Rollback]
    } else {
        Vec::new()
    }
}

/// Declared enforce probes whose last result since activation is not a pass.
pub(crate) fn unpassed_probes(record: &HostRecord) -> impl Iterator<Item = &ProbeName> {
    let passed = |probe: &ProbeRecord| probe.status == ProbeStatus::Pass;
    let declared = record.declared_probes.as_deref().unwrap_or_default();
    declared
        .iter()
        .filter(|probe| probe.mode == ProbeMode::Enforce)
        .filter(move |probe| !record.probes.get(&probe.probe_name).is_some_and(passed))
        .map(|probe| &probe.probe_name)
}
