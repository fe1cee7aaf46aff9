//! Events that an agent reports in one rollout, from the acknowledgement of its dispatch to convergence.
//!
//! Source: docs/wire-protocol.md, events.

use nixfleet_proto::event::SubResult;
use nixfleet_proto::host::ProbeDeclaration;
use nixfleet_proto::{
    ClosureHash, HostEventBody, OnHealthFailure, ProbeMode, ProbeName, ProbeStatus, Timestamp,
};

/// Steps of a successful activation, the last one is the claim of convergence.
pub const ACTIVATION_STEPS: std::ops::RangeInclusive<usize> = 1..=8;
/// Steps that report the results of the three probes; they may be repeated at any time.
pub const PROBE_STEPS: std::ops::Range<usize> = 5..8;

/// The event of a host that switches from `running` to `target`, at a step of [`ACTIVATION_STEPS`].
pub fn event_at_step(
    target: &ClosureHash,
    running: &ClosureHash,
    step: usize,
    now: Timestamp,
) -> HostEventBody {
    match step {
        1 => HostEventBody::DispatchAck {
            current_closure_at_dispatch: copy(running),
            received_at: now,
        },
        2 => HostEventBody::ActivationStarted {
            started_at: now,
            switch_method: "switch-to-configuration".to_owned(),
        },
        3 => HostEventBody::ActivationCompleted {
            observed_current_closure: copy(target),
            exit_code: 0,
            completed_at: now,
        },
        4 => HostEventBody::ProbeTopologyDeclared {
            probes: [("nginx", "http"), ("sshd", "tcp"), ("anssi", "evidence")]
                .map(|(name, kind)| ProbeDeclaration {
                    probe_name: ProbeName::from(name),
                    kind: kind.to_owned(),
                    mode: ProbeMode::Enforce,
                })
                .to_vec(),
            declared_at: now,
        },
        5 => result("nginx", ProbeStatus::Pass, None, now),
        6 => result("sshd", ProbeStatus::Pass, None, now),
        7 => result("anssi", ProbeStatus::Pass, Some(controls()), now),
        _ => HostEventBody::Converged {
            converged_at: now,
            current_closure: copy(target),
        },
    }
}

/// A successful activation as a whole.
pub fn activation(
    target: &ClosureHash,
    running: &ClosureHash,
    now: Timestamp,
) -> Vec<HostEventBody> {
    let steps = ACTIVATION_STEPS;
    steps
        .map(|step| event_at_step(target, running, step, now))
        .collect()
}

/// An activation after which a probe fails, and the rollback to `running`.
pub fn rollback(target: &ClosureHash, running: &ClosureHash, now: Timestamp) -> Vec<HostEventBody> {
    let mut events: Vec<HostEventBody> = (*ACTIVATION_STEPS.start()..PROBE_STEPS.start)
        .map(|step| event_at_step(target, running, step, now))
        .collect();
    events.push(result("nginx", ProbeStatus::Fail, None, now));
    events.push(HostEventBody::Failed {
        failed_at: now,
        sustained_duration_secs: 1,
        failing_probes: vec![ProbeName::from("nginx")],
        policy_applied: OnHealthFailure::RollbackAndHalt,
    });
    events.push(HostEventBody::RollbackComplete {
        reverted_to_closure: copy(running),
        exit_code: 0,
        completed_at: now,
    });
    events
}

/// The results of one round of probes, all of which pass.
pub fn probe_round(target: &ClosureHash, now: Timestamp) -> Vec<HostEventBody> {
    let steps = PROBE_STEPS;
    steps
        .map(|step| event_at_step(target, target, step, now))
        .collect()
}

/// A text of its own, as decoding makes one.
fn copy(closure: &ClosureHash) -> ClosureHash {
    closure.as_str().into()
}

fn result(
    name: &str,
    status: ProbeStatus,
    sub_results: Option<Vec<SubResult>>,
    now: Timestamp,
) -> HostEventBody {
    HostEventBody::ProbeResult {
        probe_name: ProbeName::from(name),
        mode: ProbeMode::Enforce,
        status,
        observed_at: now,
        failure_reason: None,
        sub_results,
    }
}

fn controls() -> Vec<SubResult> {
    ["R1", "R28", "R33"]
        .map(|control| SubResult {
            control_id: control.to_owned(),
            status: ProbeStatus::Pass,
            framework: "anssi-bp028".to_owned(),
            article: None,
            effective_mode: ProbeMode::Enforce,
            override_reason: None,
        })
        .to_vec()
}
