//! Wait reasons of hosts without blocks.
//!
//! Source: docs/semantics.md, plan report.

use nixfleet_proto::host::ProbeRecord;
use nixfleet_proto::{HostRecord, HostState, ProbeMode, ProbeName, ProbeStatus, Timestamp};
use serde::{Deserialize, Serialize};

/// What a host without blocks waits for.
///
/// Source: docs/semantics.md, plan report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum AwaitedStep {
    /// The agent, to acknowledge the queued dispatch.
    Acknowledgement,
    /// The switch, or its confirmation.
    Activation,
    /// The reboot into the staged closure.
    Reboot,
    /// The end of the soak window.
    Soak {
        /// End of the window.
        due_at: Timestamp,
    },
    /// The agent, to declare its probes.
    ProbeTopology,
    /// Passes of declared enforce probes since activation.
    Probe {
        /// Their names, as declared.
        probes: Vec<ProbeName>,
    },
    /// The agent, to report convergence.
    Report,
    /// The rollback to the previous closure.
    Rollback,
}

/// Whether a dispatch of the host is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// A dispatch is queued and not acknowledged.
    Yes,
    /// No dispatch is queued.
    No,
}

/// The wait reasons of a host at `now`; empty for a finished host, and for a Pending one without a
/// dispatch.
pub fn awaited_steps(record: &HostRecord, queued: Queued, now: Timestamp) -> Vec<AwaitedStep> {
    match record.state {
        HostState::Pending => match queued {
            Queued::Yes => vec![AwaitedStep::Acknowledgement],
            Queued::No => Vec::new(),
        },
        HostState::Activating => vec![AwaitedStep::Activation],
        HostState::Deferred => vec![AwaitedStep::Reboot],
        HostState::Soaking => soaking(record, now),
        HostState::Failed => failed(record),
        HostState::Converged | HostState::Reverted => Vec::new(),
    }
}

fn soaking(record: &HostRecord, now: Timestamp) -> Vec<AwaitedStep> {
    let mut reasons = Vec::new();
    if let Some(due_at) = record.soak_due_at.filter(|due_at| *due_at > now) {
        reasons.push(AwaitedStep::Soak { due_at });
    }
    if record.declared_probes.is_none() {
        reasons.push(AwaitedStep::ProbeTopology);
    }
    let probes: Vec<_> = unpassed_probes(record).cloned().collect();
    if !probes.is_empty() {
        reasons.push(AwaitedStep::Probe { probes });
    }
    if reasons.is_empty() && record.convergence_claim.is_none() {
        reasons.push(AwaitedStep::Report);
    }
    reasons
}

fn failed(record: &HostRecord) -> Vec<AwaitedStep> {
    if record.expects_rollback() {
        vec![AwaitedStep::Rollback]
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
