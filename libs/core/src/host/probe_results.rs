//! Recording of probe events in Soaking and Converged; never changes the state.

use std::collections::BTreeSet;
use std::sync::Arc;

use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::{FailedControl, ProbeRecord};
use nixfleet_proto::{
    HostEventBody, HostRecord, ProbeMode, ProbeName, ProbeStatus, Rejection, Timestamp,
};

use super::transition::{Cause, Transition};

struct ProbeResult<'a> {
    probe_name: &'a ProbeName,
    mode: ProbeMode,
    status: ProbeStatus,
    observed_at: Timestamp,
    failure_reason: Option<&'a String>,
    controls: &'a [SubResult],
}

/// Records one of the four probe events.
pub(super) fn record_event(
    record: &HostRecord,
    body: &HostEventBody,
) -> Result<Transition, Rejection> {
    use HostEventBody as E;
    match body {
        E::ProbeTopologyDeclared {
            probes,
            declared_at,
        } => {
            let next = HostRecord {
                declared_probes: Some(probes.as_slice().into()),
                ..record.clone()
            };
            Ok(Transition::plain(next, *declared_at))
        }
        E::ProbeObservedFirst {
            mode, observed_at, ..
        } => {
            let mut next = record.clone();
            next.probe_observed_first_at.get_or_insert(*observed_at);
            Ok(first_seen(next, *mode, *observed_at))
        }
        E::ProbeFailureFirst {
            mode,
            first_failed_at,
            ..
        } => {
            let mut next = record.clone();
            next.probe_failure_first_at.get_or_insert(*first_failed_at);
            Ok(first_seen(next, *mode, *first_failed_at))
        }
        E::ProbeResult {
            probe_name,
            mode,
            status,
            observed_at,
            failure_reason,
            sub_results,
        } => Ok(record_result(
            record,
            &ProbeResult {
                probe_name,
                mode: *mode,
                status: *status,
                observed_at: *observed_at,
                failure_reason: failure_reason.as_ref(),
                controls: sub_results.as_deref().unwrap_or_default(),
            },
        )),
        E::DispatchAck { .. } | E::ActivationStarted { .. } | E::ActivationCompleted { .. } => {
            Err(Rejection::illegal(record.state.name(), body.name()))
        }
        E::ActivationDeferred { .. } | E::ActivationFailed { .. } | E::Failed { .. } => {
            Err(Rejection::illegal(record.state.name(), body.name()))
        }
        E::RollbackComplete { .. } | E::RollbackFailed { .. } | E::Converged { .. } => {
            Err(Rejection::illegal(record.state.name(), body.name()))
        }
    }
}

fn first_seen(next: HostRecord, mode: ProbeMode, at: Timestamp) -> Transition {
    let durable = mode != ProbeMode::Observe;
    Transition {
        next,
        at,
        cause: Cause::ProbeSeen { durable },
    }
}

fn record_result(record: &HostRecord, result: &ProbeResult<'_>) -> Transition {
    let before = record.probes.get(result.probe_name);
    let failing_controls = (!result.controls.is_empty())
        .then(|| Arc::new(failing(result.controls).collect::<BTreeSet<FailedControl>>()));
    let after = ProbeRecord {
        status: result.status,
        mode: result.mode,
        last_observed_at: result.observed_at,
        last_pass_at: match result.status {
            ProbeStatus::Pass => Some(result.observed_at),
            ProbeStatus::Fail => before.and_then(|probe| probe.last_pass_at),
        },
        failure_reason: match result.status {
            ProbeStatus::Pass => None,
            ProbeStatus::Fail => result.failure_reason.cloned().map(Arc::new),
        },
        failing_controls,
    };
    let failures = if result.controls.is_empty() {
        outstanding(&after).cloned().collect()
    } else {
        failing(result.controls).collect()
    };
    let repeated = before.is_some_and(|before| is_repeated(before, &after));
    let durable = result.mode != ProbeMode::Observe && !repeated;
    let probe_name = declared_name(record, result.probe_name);
    let mut next = record.clone();
    next.probes.insert(probe_name.clone(), after);
    Transition {
        next,
        at: result.observed_at,
        cause: Cause::ProbeResult {
            probe_name,
            failures,
            durable,
        },
    }
}

/// The failing enforce controls, in list order.
fn failing(controls: &[SubResult]) -> impl Iterator<Item = FailedControl> {
    controls
        .iter()
        .filter(|control| {
            control.status == ProbeStatus::Fail && control.effective_mode == ProbeMode::Enforce
        })
        .map(|control| FailedControl {
            control_id: Some(control.control_id.clone()),
            framework: Some(control.framework.clone()),
        })
}

/// The name from the declaration, to share its allocation.
fn declared_name(record: &HostRecord, name: &ProbeName) -> ProbeName {
    let declared = record.declared_probes.as_deref().unwrap_or_default();
    let same = declared.iter().find(|probe| probe.probe_name == *name);
    same.map_or(name, |probe| &probe.probe_name).clone()
}

/// The failure of a probe without controls.
static WHOLE_PROBE: FailedControl = FailedControl {
    control_id: None,
    framework: None,
};

/// Failing controls of a result, in order; a probe without controls counts as one control.
fn outstanding(probe: &ProbeRecord) -> impl Iterator<Item = &FailedControl> {
    let fails = probe.status == ProbeStatus::Fail && probe.mode == ProbeMode::Enforce;
    let whole_probe = (fails && probe.failing_controls.is_none()).then_some(&WHOLE_PROBE);
    let controls = probe.failing_controls.as_deref();
    controls.into_iter().flatten().chain(whole_probe)
}

/// True for the same status and failing enforce controls as the previous result.
///
/// The first pass under enforce is never a repetition: an earlier pass under observe was not durable.
fn is_repeated(before: &ProbeRecord, after: &ProbeRecord) -> bool {
    let first_enforced_pass = after.mode == ProbeMode::Enforce && before.mode != ProbeMode::Enforce;
    before.status == after.status
        && outstanding(before).eq(outstanding(after))
        && !(after.status == ProbeStatus::Pass && first_enforced_pass)
}
