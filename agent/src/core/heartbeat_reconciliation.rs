//! Heartbeats, and reconciliation with the control plane after a crash or an outage.
//!
//! The control plane infers missed transitions from the running closure. So a heartbeat contains the
//! closure only when no event is unacknowledged; otherwise inference and report would race.
//!
//! Whoever answers may lie. From a snapshot the agent takes what to send again, a bounded floor of sequences,
//! and the id of a rollout for which it may begin a walk. No closure, state or time of a snapshot enters a
//! record.
//!
//! Source: docs/wire-protocol.md, what an agent believes.

use nixfleet_proto::wire::{HeartbeatReply, HeartbeatRequest, HostSnapshot};
use nixfleet_proto::{HostState, RolloutId, Timestamp, mutation_testing};

use super::heartbeat_schedule::{Sent, StartReply};
use super::{AgentCore, Command, LocalRollout, Work};
use crate::admitted_closure::ObservedClosure;

/// Consecutive replies that must disagree before the agent acts on them: a single one may have crossed an
/// event.
const DISAGREEMENTS: u32 = 2;

/// How the control plane's record differs from the agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// It lacks events.
    LacksEvents,
    /// Its soak is over, and it still has the host Soaking after it acknowledged the claim.
    StillSoaking,
    /// It waits for the rollback of a host that has not failed here.
    ExpectsRollback,
}

impl Difference {
    fn between(rollout: &LocalRollout, snapshot: &HostSnapshot, now: Timestamp) -> Option<Self> {
        let own = rollout.record.state;
        if snapshot.last_event_seq < rollout.record.last_event_seq {
            return Some(Self::LacksEvents);
        }
        let soak_is_over = snapshot.soak_due_at.is_none_or(|due| due <= now);
        match snapshot.state {
            HostState::Soaking if own == HostState::Converged && soak_is_over => {
                Some(Self::StillSoaking)
            }
            HostState::Failed
                if !matches!(own, HostState::Failed | HostState::Reverted)
                    && !rollout.rollback_denied =>
            {
                Some(Self::ExpectsRollback)
            }
            HostState::Pending
            | HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Converged
            | HostState::Failed
            | HostState::Reverted => None,
        }
    }
}

impl AgentCore {
    pub(super) fn send_heartbeat(&mut self, now: Timestamp) {
        let names_closure = self.is_quiet(now);
        self.heartbeat.in_flight = Some(Sent { names_closure });
        self.heartbeat.due = Some(now + self.config.heartbeat_interval);
        self.commands.push(Command::Heartbeat(HeartbeatRequest {
            hostname: self.hostname.clone(),
            rollout_id: None,
            current_closure: names_closure.then(|| self.current_closure().clone()),
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

    pub(super) fn heartbeat_failed(&mut self, now: Timestamp) {
        if self.heartbeat.in_flight.take().is_none() {
            return;
        }
        self.heartbeat.failures = self.heartbeat.failures.saturating_add(1);
        let pause = self.config.backoff(self.heartbeat.failures, self.salt);
        self.heartbeat.due = Some(now + pause.min(self.config.heartbeat_interval));
        let reply = StartReply {
            reply: None,
            named_closure: false,
        };
        self.enter_running(reply, now);
    }

    pub(super) fn heartbeat_answered(&mut self, reply: &HeartbeatReply, now: Timestamp) {
        let Some(sent) = self.heartbeat.in_flight.take() else {
            return;
        };
        self.heartbeat.failures = 0;
        let reply_at_start = StartReply {
            reply: Some(reply),
            named_closure: sent.names_closure,
        };
        for snapshot in &reply.bootstrap_rollouts {
            if snapshot.hostname == self.hostname {
                self.reconcile(snapshot, now);
            }
        }
        self.enter_running(reply_at_start, now);
    }

    fn reconcile(&mut self, snapshot: &HostSnapshot, now: Timestamp) {
        let id = &snapshot.rollout_id;
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return self.adopt(snapshot);
        };
        if mutation_testing::is_active("agent-closure-of-snapshot") {
            let closure = snapshot.current_closure_at_dispatch.clone();
            rollout.predecessor = closure.map(ObservedClosure::of_machine);
        }
        if !rollout.raise_seq_floor(snapshot.last_event_seq) {
            return self.refuse_seq_floor(id, snapshot.last_event_seq);
        }
        if rollout.replaced || rollout.work != Work::Idle {
            return;
        }
        let Some(difference) = Difference::between(rollout, snapshot, now) else {
            rollout.disagreements = 0;
            return;
        };
        if !rollout.outbox.is_empty() {
            return;
        }
        rollout.disagreements = rollout.disagreements.saturating_add(1);
        if rollout.disagreements < DISAGREEMENTS {
            return;
        }
        rollout.disagreements = 0;
        match difference {
            Difference::LacksEvents => self.send_missing_events(snapshot, now),
            Difference::StillSoaking => self.re_report(id, snapshot.state, now),
            Difference::ExpectsRollback => self.deny_rollback(id, now),
        }
    }

    /// Events that are not counted after their replay were rejected: the control plane went on without them.
    fn send_missing_events(&mut self, snapshot: &HostSnapshot, now: Timestamp) {
        let id = &snapshot.rollout_id;
        let after = snapshot.last_event_seq;
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        if rollout.replayed_after != Some(after) {
            rollout.replayed_after = Some(after);
            self.replay(id, after);
        } else {
            self.re_report(id, snapshot.state, now);
        }
    }

    pub(super) fn refuse_seq_floor(&mut self, id: &RolloutId, seq: u64) {
        let message = format!("sequence {seq} leaves too few numbers for further events");
        self.refuse(id, "sequence-floor", message);
    }
}
