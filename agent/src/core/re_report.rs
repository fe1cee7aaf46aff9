//! Re-reports what the control plane could not apply, with new sequences.
//!
//! The control plane may infer from a heartbeat that the target runs before it gets the agent's own events.
//! It then has the host Soaking, and rejects what led there on every retry: a failed activation and the
//! subsequent rollback, or the probes that the host needs to converge. A soaking host accepts `Failed`, and
//! probes, so the agent reports those. A gateway may also have refused the failure of an activation for good.
//!
//! Source: docs/semantics.md, heartbeats and recovery.

use nixfleet_proto::wire::WireEvent;
use nixfleet_proto::{
    HostEvent, HostEventBody, HostState, ProbeStatus, RollbackFault, RolloutId, Timestamp,
};

use super::{AgentCore, LocalRollout, Notification};

impl AgentCore {
    /// Reports the local state again to a control plane that has the host in `theirs`. Neither the host nor
    /// the local state changes.
    pub(super) fn re_report(&mut self, id: &RolloutId, theirs: HostState, now: Timestamp) {
        let Some(rollout) = self.rollouts.get(id) else {
            return;
        };
        let bodies = match theirs {
            HostState::Soaking => events_from_soaking(rollout, now),
            HostState::Activating | HostState::Deferred => events_from_activating(rollout, now),
            // An open record in Pending is recovered from the running closure, or dispatched again.
            HostState::Pending | HostState::Converged | HostState::Failed | HostState::Reverted => {
                Vec::new()
            }
        };
        for body in bodies {
            self.emit_with_new_seq(id, body);
        }
    }

    /// Tells a control plane that waits for a rollback that none will come: the host has not failed here, or
    /// the agent has no journal of the rollout.
    pub(super) fn deny_rollback(&mut self, id: &RolloutId, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        rollout.rollback_denied = true;
        let state = rollout.record.state;
        let detail = match state {
            HostState::Pending => "the agent has no journal of this rollout".to_owned(),
            HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Converged
            | HostState::Failed
            | HostState::Reverted => format!("the host is {} here", state.name()),
        };
        let body = HostEventBody::RollbackFailed {
            reason: RollbackFault::Impossible,
            detail,
            failed_at: now,
        };
        self.emit_with_new_seq(id, body);
    }

    fn emit_with_new_seq(&mut self, id: &RolloutId, body: HostEventBody) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let Some(seq) = rollout.next_seq() else {
            let rollout_id = id.clone();
            return self.note(Notification::OutOfSequences { rollout_id });
        };
        rollout.record.last_event_seq = seq;
        self.emit(id, WireEvent::from(HostEvent { seq, body }), true);
    }
}

/// The events that lead from Soaking to the local state.
fn events_from_soaking(rollout: &LocalRollout, now: Timestamp) -> Vec<HostEventBody> {
    let record = &rollout.record;
    match record.state {
        HostState::Pending | HostState::Activating | HostState::Deferred => Vec::new(),
        HostState::Soaking => passes(rollout, now),
        HostState::Converged => {
            let mut bodies = passes(rollout, now);
            bodies.push(HostEventBody::Converged {
                converged_at: now,
                current_closure: record.target_closure.clone(),
            });
            bodies
        }
        HostState::Failed | HostState::Reverted => failure(rollout, now),
    }
}

/// The events that lead from Activating to a failure. The control plane infers a completed activation.
fn events_from_activating(rollout: &LocalRollout, now: Timestamp) -> Vec<HostEventBody> {
    let record = &rollout.record;
    let mut bodies = match record.state {
        HostState::Failed | HostState::Reverted => failure(rollout, now),
        HostState::Pending
        | HostState::Activating
        | HostState::Deferred
        | HostState::Soaking
        | HostState::Converged => return Vec::new(),
    };
    if let Some(first) = bodies.first_mut() {
        *first = HostEventBody::ActivationFailed {
            exit_code: 1,
            stderr_tail: "reported again".to_owned(),
            failed_at: record.failed_at.unwrap_or(now),
        };
    }
    bodies
}

/// The declared probes and those that pass; one that fails is reported by its next run.
fn passes(rollout: &LocalRollout, now: Timestamp) -> Vec<HostEventBody> {
    let record = &rollout.record;
    let Some(declared) = &record.declared_probes else {
        return Vec::new();
    };
    let topology = HostEventBody::ProbeTopologyDeclared {
        probes: declared.to_vec(),
        declared_at: now,
    };
    let passing = record.probes.iter();
    let passing = passing.filter(|(_, probe)| probe.status == ProbeStatus::Pass);
    let results = passing.map(|(name, probe)| HostEventBody::ProbeResult {
        probe_name: name.clone(),
        mode: probe.mode,
        status: probe.status,
        observed_at: probe.last_observed_at,
        failure_reason: None,
        sub_results: None,
    });
    std::iter::once(topology).chain(results).collect()
}

fn failure(rollout: &LocalRollout, now: Timestamp) -> Vec<HostEventBody> {
    let record = &rollout.record;
    let mut bodies = vec![HostEventBody::Failed {
        failed_at: record.failed_at.unwrap_or(now),
        sustained_duration_secs: 0,
        failing_probes: Vec::new(),
        policy_applied: record.policy_applied.unwrap_or(rollout.on_health_failure),
    }];
    if let (HostState::Reverted, Some(reverted_to)) = (record.state, &record.reverted_to) {
        bodies.push(HostEventBody::RollbackComplete {
            reverted_to_closure: reverted_to.clone(),
            exit_code: 0,
            completed_at: record.reverted_at.unwrap_or(now),
        });
    }
    if let (HostState::Failed, Some(reason)) = (record.state, record.rollback_failed) {
        bodies.push(HostEventBody::RollbackFailed {
            reason,
            detail: "reported again".to_owned(),
            failed_at: now,
        });
    }
    bodies
}
