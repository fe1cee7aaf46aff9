//! Heartbeats, and reconciliation with the control plane after a crash or an outage.
//!
//! The control plane infers missed transitions from the running closure. So a heartbeat contains the
//! closure only when no event is unacknowledged; otherwise inference and report would race.
//!
//! Source: docs/semantics.md, heartbeats and recovery.

use nixfleet_core::host::{self, HostInput, StepCtx};
use nixfleet_proto::wire::{HeartbeatReply, HeartbeatRequest, HostSnapshot};
use nixfleet_proto::{
    HostEvent, HostEventBody, HostState, Producer, RolloutId, RolloutState, Timestamp,
};

use super::heartbeat_schedule::Sent;
use super::{AgentCore, Command, LocalRollout, Notification, Work};

/// Consecutive replies that must disagree before the agent acts on them: a single one may have crossed an
/// event.
const DISAGREEMENTS: u32 = 2;

impl AgentCore {
    pub(super) fn send_heartbeat(&mut self, now: Timestamp) {
        let names_closure = self.is_quiet(now);
        self.heartbeat.in_flight = Some(Sent { names_closure });
        self.heartbeat.due = Some(now + self.config.heartbeat_interval);
        self.commands.push(Command::Heartbeat(HeartbeatRequest {
            hostname: self.hostname.clone(),
            rollout_id: None,
            current_closure: names_closure.then(|| self.current_closure.clone()),
            at: now,
        }));
    }

    /// True when every event was acknowledged at least
    /// [`AgentConfig::heartbeat_settle`](super::AgentConfig::heartbeat_settle) ago.
    fn is_quiet(&self, now: Timestamp) -> bool {
        let settled = self
            .heartbeat
            .acknowledged_at
            .is_none_or(|at| now - at >= self.config.heartbeat_settle);
        settled
            && self.rollouts.values().all(|rollout| {
                rollout.outbox.is_empty()
                    && !matches!(rollout.work, Work::Switching | Work::RollingBack)
            })
    }

    /// Records the acknowledgement of an event. After the last one a heartbeat is due soon if only the
    /// control plane can infer the result of an interrupted switch or rollback.
    pub(super) fn heartbeat_after_acknowledgement(&mut self, now: Timestamp) {
        self.heartbeat.acknowledged_at = Some(now);
        let drained = self.rollouts.values().all(|r| r.outbox.is_empty());
        if drained && self.rollouts.values().any(|r| self.awaits_recovery(r)) {
            let soon = now + self.config.heartbeat_settle;
            self.heartbeat.due = self.heartbeat.due.map(|due| due.min(soon));
        }
    }

    /// True when the running closure implies an unreported switch or rollback.
    fn awaits_recovery(&self, rollout: &LocalRollout) -> bool {
        if rollout.replaced || rollout.work != Work::Idle {
            return false;
        }
        match rollout.record.state {
            HostState::Activating | HostState::Deferred => {
                rollout.record.target_closure == self.current_closure
            }
            HostState::Failed => rollout.rollback_target() == Some(&self.current_closure),
            HostState::Pending
            | HostState::Soaking
            | HostState::Converged
            | HostState::Reverted => false,
        }
    }

    pub(super) fn heartbeat_failed(&mut self, now: Timestamp) {
        if self.heartbeat.in_flight.take().is_none() {
            return;
        }
        self.heartbeat.failures = self.heartbeat.failures.saturating_add(1);
        let pause = self.config.backoff(self.heartbeat.failures, self.salt);
        self.heartbeat.due = Some(now + pause.min(self.config.heartbeat_interval));
        self.enter_running();
    }

    pub(super) fn heartbeat_answered(&mut self, reply: &HeartbeatReply, now: Timestamp) {
        let Some(sent) = self.heartbeat.in_flight.take() else {
            return;
        };
        self.heartbeat.failures = 0;
        for snapshot in &reply.bootstrap_rollouts {
            if snapshot.hostname == self.hostname {
                self.reconcile(snapshot, now);
            }
        }
        if sent.names_closure && self.is_quiet(now) {
            for id in self.rollout_ids() {
                let snapshot = reply.bootstrap_rollouts.iter().find(|s| s.rollout_id == id);
                self.settle_recovery(&id, snapshot, now);
            }
        }
        self.enter_running();
    }

    /// Adopts the control plane's state unless the local state is newer.
    fn reconcile(&mut self, snapshot: &HostSnapshot, now: Timestamp) {
        self.follow_again(&snapshot.rollout_id);
        let Some(rollout) = self.rollouts.get_mut(&snapshot.rollout_id) else {
            return self.adopt(snapshot);
        };
        if rollout.replaced || rollout.work != Work::Idle {
            return;
        }
        let own = rollout.record.last_event_seq;
        let is_older = snapshot.last_event_seq < own;
        // At the same sequence a converged host whose claim still waits is not pulled back.
        let is_behind = snapshot.last_event_seq == own
            && rollout.record.state == HostState::Converged
            && snapshot.state == HostState::Soaking;
        if !is_older && !is_behind {
            rollout.disagreements = 0;
            return self.apply_snapshot(snapshot);
        }
        if !rollout.outbox.is_empty() {
            return;
        }
        rollout.disagreements += 1;
        if rollout.disagreements < DISAGREEMENTS {
            return;
        }
        rollout.disagreements = 0;
        if is_behind {
            self.apply_snapshot(snapshot);
        } else if rollout.replayed_after != Some(snapshot.last_event_seq) {
            rollout.replayed_after = Some(snapshot.last_event_seq);
            self.replay(&snapshot.rollout_id, snapshot.last_event_seq);
        } else if snapshot.state == HostState::Soaking {
            self.correct_stale_soaking(&snapshot.rollout_id, now);
        }
    }

    /// Overwrites what the control plane is the authority for; probes stay the agent's.
    pub(super) fn apply_snapshot(&mut self, snapshot: &HostSnapshot) {
        let Some(rollout) = self.rollouts.get_mut(&snapshot.rollout_id) else {
            return;
        };
        let before = rollout.record.clone();
        let record = &mut rollout.record;
        record.state = snapshot.state;
        record.last_event_seq = snapshot.last_event_seq.max(record.last_event_seq);
        let keep = |theirs: &Option<_>, own: &mut Option<_>| {
            if theirs.is_some() {
                own.clone_from(theirs);
            }
        };
        keep(&snapshot.dispatch_acked_at, &mut record.dispatch_acked_at);
        keep(
            &snapshot.activation_started_at,
            &mut record.activation_started_at,
        );
        keep(
            &snapshot.activation_completed_at,
            &mut record.activation_completed_at,
        );
        keep(&snapshot.soak_due_at, &mut record.soak_due_at);
        if snapshot.current_closure_at_dispatch.is_some() {
            record
                .current_closure_at_dispatch
                .clone_from(&snapshot.current_closure_at_dispatch);
        }
        if snapshot.current_closure.is_some() {
            record.current_closure.clone_from(&snapshot.current_closure);
        }
        if record.state == HostState::Failed && record.policy_applied.is_none() {
            record.policy_applied = Some(rollout.on_health_failure);
        }
        if before.state == record.state {
            if before != *record {
                rollout.mark_dirty();
            }
            return;
        }
        if record.state == HostState::Soaking {
            record.probes.clear();
            record.declared_probes = None;
            record.converged_at = None;
        }
        let to = record.state;
        rollout.mark_dirty();
        self.note(Notification::Recovered {
            rollout_id: snapshot.rollout_id.clone(),
            from: before.state,
            to,
        });
        if self.phase == super::Phase::Running {
            self.resume(&snapshot.rollout_id);
        }
    }

    /// Ends the recovery after a reply to a heartbeat with the running closure. The snapshot contains the
    /// inferred state; without one the record is closed.
    fn settle_recovery(&mut self, id: &RolloutId, snapshot: Option<&HostSnapshot>, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let own = rollout.record.last_event_seq;
        let rolled_back = rollout.record.state == HostState::Failed;
        // Resent events that are not counted were refused: the control plane lost them and continued
        // without them.
        let answered = snapshot.is_none_or(|snapshot| {
            let theirs = snapshot.last_event_seq;
            theirs >= own || rollout.replayed_after == Some(theirs)
        });
        let rollout = &self.rollouts[id];
        if !answered || !self.awaits_recovery(rollout) {
            return;
        }
        let closure = self.current_closure.clone();
        match (snapshot.is_some(), rolled_back) {
            (true, true) => {
                self.observe(id, rollback_complete(closure, now), now);
            }
            (true, false) => {
                let body = HostEventBody::ActivationCompleted {
                    observed_current_closure: closure,
                    exit_code: 0,
                    completed_at: now,
                };
                self.observe(id, body, now);
            }
            (false, true) => self.recover(id, rollback_complete(closure, now), now),
            (false, false) => self.stop_following(id),
        }
    }

    /// The control plane closed the record by itself; the same event closes the agent's, unreported.
    fn recover(&mut self, id: &RolloutId, body: HostEventBody, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let from = rollout.record.state;
        let event = HostEvent {
            seq: rollout.record.recovery_seq + 1,
            body,
        };
        let ctx = StepCtx {
            on_health_failure: rollout.on_health_failure,
            rollout_state: RolloutState::Active,
            received_at: now,
        };
        let input = HostInput::Event {
            producer: Producer::Recovery,
            event: &event,
        };
        match host::step_agent(&rollout.record, &input, &ctx) {
            Ok(step) => {
                rollout.record = step.next;
                rollout.mark_dirty();
                let to = rollout.record.state;
                self.note(Notification::Recovered {
                    rollout_id: id.clone(),
                    from,
                    to,
                });
            }
            Err(rejection) => self.note(Notification::Unexpected {
                rollout_id: id.clone(),
                kind: event.body.name(),
                rejection,
            }),
        }
    }

    /// Follows a rollout again that the control plane lists again, unless a newer one has replaced it: the
    /// gateway that did not list the rollout as open may have lagged.
    fn follow_again(&mut self, id: &RolloutId) {
        let newest = self.rollouts.values().map(|r| r.record.dispatched_at).max();
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        if rollout.replaced && Some(rollout.record.dispatched_at) == newest {
            rollout.replaced = false;
            rollout.mark_dirty();
        }
    }

    /// Stops following a rollout whose target runs and of which the control plane has no open record.
    fn stop_following(&mut self, id: &RolloutId) {
        if let Some(rollout) = self.rollouts.get_mut(id) {
            rollout.replaced = true;
            rollout.probes.stop();
            rollout.mark_dirty();
        }
    }
}

fn rollback_complete(closure: nixfleet_proto::ClosureHash, now: Timestamp) -> HostEventBody {
    HostEventBody::RollbackComplete {
        reverted_to_closure: closure,
        exit_code: 0,
        completed_at: now,
    }
}
