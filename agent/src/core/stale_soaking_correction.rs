//! Re-reports a failure that the control plane could not apply.
//!
//! The control plane may infer from a heartbeat that the target runs before its activation fails. It then
//! has the host Soaking, and rejects the failed activation and the subsequent rollback on every retry. A
//! soaking host accepts `Failed`, so the agent reports that.
//!
//! Source: docs/semantics.md, heartbeats and recovery.

use nixfleet_proto::wire::WireEvent;
use nixfleet_proto::{HostEvent, HostEventBody, HostState, RolloutId, Timestamp};

use super::{AgentCore, LocalRollout};

impl AgentCore {
    /// Re-reports a failure with new sequences to a control plane that has the host Soaking. Neither the
    /// host nor the local state changes.
    pub(super) fn correct_stale_soaking(&mut self, id: &RolloutId, now: Timestamp) {
        let Some(rollout) = self.rollouts.get(id) else {
            return;
        };
        for body in failure_events(rollout, now) {
            self.emit_with_new_seq(id, body);
        }
    }

    fn emit_with_new_seq(&mut self, id: &RolloutId, body: HostEventBody) {
        if let Some(rollout) = self.rollouts.get_mut(id) {
            let seq = rollout.next_seq();
            rollout.record.last_event_seq = seq;
            self.emit(id, WireEvent::from(HostEvent { seq, body }), true);
        }
    }
}

/// The events that lead from Soaking to the local state; none unless the rollout failed here.
fn failure_events(rollout: &LocalRollout, now: Timestamp) -> Vec<HostEventBody> {
    let record = &rollout.record;
    let mut bodies = Vec::new();
    if matches!(record.state, HostState::Failed | HostState::Reverted) {
        bodies.push(HostEventBody::Failed {
            failed_at: record.failed_at.unwrap_or(now),
            sustained_duration_secs: 0,
            failing_probes: Vec::new(),
            policy_applied: record.policy_applied.unwrap_or(rollout.on_health_failure),
        });
    }
    if let (HostState::Reverted, Some(reverted_to)) = (record.state, &record.reverted_to) {
        bodies.push(HostEventBody::RollbackComplete {
            reverted_to_closure: reverted_to.clone(),
            exit_code: 0,
            completed_at: record.reverted_at.unwrap_or(now),
        });
    }
    bodies
}
