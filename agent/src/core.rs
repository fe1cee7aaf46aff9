//! The agent's decisions, without IO: [`Input`]s and the time to [`Command`]s.
//!
//! The state of a host in a rollout changes only through `nixfleet_core::host::step_agent`, the machine of
//! the control plane. This module adds the state that only a host has: the running closure, verified
//! manifests, due probes and unsent events. Commands for the machine name an
//! [`AdmittedClosure`](crate::AdmittedClosure), which no reply of the control plane can make.
//!
//! Start reading at [`AgentCore::step`]; `dispatch`, `activation`, `health_check`, `heartbeat_reconciliation`,
//! `re_report` and `event_delivery` hold the rules of one topic each.

mod activation;
pub mod config;
mod dispatch;
mod event_delivery;
mod health_check;
mod heartbeat_reconciliation;
mod heartbeat_schedule;
pub mod inputs_and_outputs;
pub mod local_rollout_state;
pub mod outbox;
mod pending_rollout;
pub mod probe_tracker;
mod re_report;

use std::collections::{BTreeMap, VecDeque};

use nixfleet_core::host::{self, AgentEffect, HostInput, StepCtx};
use nixfleet_proto::wire::{EventRequest, WireEvent};
use nixfleet_proto::{
    ClosureHash, HostEvent, HostEventBody, HostState, Hostname, Producer, RolloutId, RolloutState,
    Timestamp, mutation_testing,
};

pub use config::AgentConfig;
pub use inputs_and_outputs::{
    Command, DeliveryResult, Input, Notification, ReleaseFault, RollbackOutcome, SwitchOutcome,
};
pub use local_rollout_state::{Journal, LocalRollout, Work};
pub use probe_tracker::ProbeReading;

use crate::admitted_closure::ObservedClosure;
use crate::agent_memory::AgentMemory;
use heartbeat_schedule::{Heartbeat, StartReply};
use pending_rollout::PendingRollout;

/// The state of an agent.
#[derive(Debug, Clone)]
pub struct AgentCore {
    hostname: Hostname,
    config: AgentConfig,
    salt: u64,
    phase: Phase,
    running: ObservedClosure,
    memory: AgentMemory,
    memory_changed: bool,
    rollouts: BTreeMap<RolloutId, LocalRollout>,
    pending: BTreeMap<RolloutId, PendingRollout>,
    held: VecDeque<RolloutId>,
    heartbeat: Heartbeat,
    commands: Vec<Command>,
}

/// What an agent kept from its previous process.
#[derive(Debug, Clone, Default)]
pub struct SavedState {
    /// One per rollout.
    pub journals: Vec<Journal>,
    /// What it remembers besides.
    pub memory: AgentMemory,
}

/// Phase of the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before [`Input::Started`].
    New,
    /// The first heartbeat is sent; its reply may correct the restored state.
    FirstHeartbeat,
    /// At work.
    Running,
}

impl AgentCore {
    /// An agent with what its previous process saved.
    pub fn new(hostname: Hostname, config: AgentConfig, saved: SavedState) -> Self {
        let journals = saved.journals.into_iter();
        let rollouts = journals
            .map(|journal| (journal.record.rollout_id.clone(), journal))
            .map(|(id, journal)| (id, LocalRollout::restored(journal)))
            .collect();
        Self {
            salt: config::salt(hostname.as_str()),
            hostname,
            config,
            phase: Phase::New,
            running: ObservedClosure::of_machine(ClosureHash::from("")),
            memory: saved.memory,
            memory_changed: false,
            rollouts,
            pending: BTreeMap::new(),
            held: VecDeque::new(),
            heartbeat: Heartbeat::default(),
            commands: Vec::new(),
        }
    }

    /// Takes an input and returns the commands that follow, in order.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Command> {
        match input {
            Input::Started { current_closure } => self.start(current_closure, now),
            Input::DispatchReceived(dispatch) => self.take_dispatch(dispatch.into_inner(), now),
            Input::ReleaseVerified {
                rollout_id,
                release,
            } => self.take_release(&rollout_id, &release, now),
            Input::ReleaseRefused { rollout_id, fault } => {
                self.refuse_release(&rollout_id, fault, now);
            }
            Input::SwitchStarted { rollout_id, method } => {
                self.switch_started(&rollout_id, method, now);
            }
            Input::SwitchEnded {
                rollout_id,
                outcome,
            } => self.switch_ended(&rollout_id, outcome, now),
            Input::RollbackEnded {
                rollout_id,
                outcome,
            } => self.rollback_ended(&rollout_id, outcome, now),
            Input::ProbesListed {
                rollout_id,
                generation,
                probes,
            } => self.probes_listed(&rollout_id, generation, probes, now),
            Input::ProbeRan {
                rollout_id,
                generation,
                probe_name,
                reading,
            } => self.probe_ran(&rollout_id, generation, (&probe_name, reading), now),
            Input::EventsAnswered {
                rollout_id,
                answers,
            } => self.events_answered(&rollout_id, answers, now),
            Input::HeartbeatAnswered(reply) => self.heartbeat_answered(&reply, now),
            Input::HeartbeatFailed => self.heartbeat_failed(now),
            Input::MachineObserved { current_closure } => {
                self.running = ObservedClosure::of_machine(current_closure);
            }
            Input::Tick => {}
        }
        if self.phase == Phase::Running {
            self.run_due_work(now);
        }
        self.drain_commands(now)
    }

    /// Time at which [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let heartbeat = self.heartbeat.next_due();
        if self.phase != Phase::Running {
            return heartbeat;
        }
        let outboxes = self.rollouts.values().filter_map(|r| r.outbox.next_due());
        let work = self.rollouts.values().filter_map(|r| self.work_due(r));
        let pending = self.pending.values().filter_map(PendingRollout::next_due);
        outboxes.chain(work).chain(pending).chain(heartbeat).min()
    }

    /// The host.
    pub fn hostname(&self) -> &Hostname {
        &self.hostname
    }

    /// The running closure.
    pub fn current_closure(&self) -> &ClosureHash {
        self.running.closure_hash()
    }

    /// Rollouts of this host.
    pub fn rollouts(&self) -> &BTreeMap<RolloutId, LocalRollout> {
        &self.rollouts
    }

    fn start(&mut self, current_closure: ClosureHash, now: Timestamp) {
        if self.phase == Phase::New {
            self.running = ObservedClosure::of_machine(current_closure);
            self.phase = Phase::FirstHeartbeat;
            self.send_heartbeat(now);
        }
    }

    /// Starts to act after the first heartbeat got a reply or failed.
    fn enter_running(&mut self, reply: StartReply<'_>, now: Timestamp) {
        if self.phase == Phase::FirstHeartbeat {
            self.phase = Phase::Running;
            for id in self.rollout_ids() {
                self.resume(&id, reply, now);
            }
            self.commands.push(Command::Listen);
        }
    }

    fn run_due_work(&mut self, now: Timestamp) {
        self.fetch_again(now);
        for id in self.rollout_ids() {
            self.retry_due_rollback(&id, now);
            self.check_health(&id, now);
        }
        if self.heartbeat.is_due(now) {
            self.send_heartbeat(now);
        }
    }

    fn work_due(&self, rollout: &LocalRollout) -> Option<Timestamp> {
        if rollout.replaced {
            return None;
        }
        let again = match rollout.work {
            Work::RollbackAgain { due } => Some(due),
            Work::Idle | Work::SwitchAgain | Work::Switching | Work::RollingBack => None,
        };
        again
            .into_iter()
            .chain(rollout.probes.next_due())
            .chain(self.health_due(rollout))
            .min()
    }

    /// Puts what must be durable first and what is sent last.
    fn drain_commands(&mut self, now: Timestamp) -> Vec<Command> {
        self.remove_old_rollouts();
        let mut commands: Vec<Command> = self
            .rollouts
            .values_mut()
            .filter_map(LocalRollout::take_journal)
            .map(|journal| Command::Save(Box::new(journal)))
            .collect();
        let forgets = mutation_testing::is_active("agent-forgets-memory");
        if std::mem::take(&mut self.memory_changed) && !forgets {
            commands.push(Command::Remember(Box::new(self.memory.clone())));
        }
        commands.append(&mut self.commands);
        if self.phase == Phase::Running {
            let limits = self.config.request_limits();
            for (id, rollout) in &mut self.rollouts {
                let events = rollout.outbox.take_next(now, limits).into_iter();
                let requests: Vec<_> = events
                    .map(|event| EventRequest {
                        hostname: self.hostname.clone(),
                        rollout_id: id.clone(),
                        event,
                    })
                    .collect();
                if !requests.is_empty() {
                    commands.push(Command::Send(requests));
                }
            }
        }
        commands
    }

    /// Reports what happened, if the machine agrees; returns whether it did.
    fn observe(&mut self, id: &RolloutId, body: HostEventBody, now: Timestamp) -> bool {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return false;
        };
        let Some(seq) = rollout.next_seq() else {
            let rollout_id = id.clone();
            self.note(Notification::OutOfSequences { rollout_id });
            return false;
        };
        let event = HostEvent { seq, body };
        let ctx = StepCtx {
            on_health_failure: rollout.on_health_failure,
            rollout_state: RolloutState::Active,
            received_at: now,
        };
        let input = HostInput::Event {
            producer: Producer::Agent,
            event: &event,
        };
        match host::step_agent(&rollout.record, &input, &ctx) {
            Ok(step) => {
                rollout.record = step.next;
                for effect in step.effects {
                    self.perform(id, effect, now);
                }
                true
            }
            Err(rejection) => {
                self.note(Notification::Unexpected {
                    rollout_id: id.clone(),
                    kind: event.body.name(),
                    rejection,
                });
                false
            }
        }
    }

    fn perform(&mut self, id: &RolloutId, effect: AgentEffect, now: Timestamp) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        let rollout_id = id.clone();
        match effect {
            AgentEffect::ResetProbeCache => self.list_probes(id),
            AgentEffect::EmitEvent { event, durable } => self.emit(id, event, durable),
            AgentEffect::RecordTransition { from, to, at } => {
                if matches!(to, HostState::Failed | HostState::Reverted) {
                    rollout.probes.stop();
                }
                self.remember_result(id, to);
                self.note(Notification::Transition {
                    rollout_id,
                    from,
                    to,
                    at,
                });
            }
            // The effects name the closures of the record; the machine gets those that are admitted.
            AgentEffect::FireSwitch { .. } => self.switch(id),
            AgentEffect::FireRollbackTo { .. } => self.roll_back(id, now),
        }
    }

    fn emit(&mut self, id: &RolloutId, event: WireEvent, durable: bool) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        rollout.reserve_seq(event.seq, durable);
        let waiting_max = self.config.events_waiting_max;
        if let Some(seq) = rollout.outbox.push(event, durable, waiting_max) {
            self.note(Notification::Dropped {
                rollout_id: id.clone(),
                seq,
            });
        }
    }

    fn remember_result(&mut self, id: &RolloutId, to: HostState) {
        let Some(rollout) = self.rollouts.get(id) else {
            return;
        };
        let target = &rollout.record.target_closure;
        self.memory_changed |= match to {
            HostState::Failed => {
                self.memory.remember_failure(target, id, rollout.signed_at);
                true
            }
            HostState::Converged => self.memory.forget_failures(target),
            HostState::Pending
            | HostState::Activating
            | HostState::Deferred
            | HostState::Soaking
            | HostState::Reverted => false,
        };
    }

    fn replay(&mut self, id: &RolloutId, after: u64) {
        if let Some(rollout) = self.rollouts.get_mut(id) {
            rollout.outbox.replay(after);
            rollout.mark_dirty();
        }
    }

    fn remove_old_rollouts(&mut self) {
        while self.rollouts.len() > self.config.rollouts_max {
            let oldest = self
                .rollouts
                .values()
                .filter(|rollout| rollout.is_over() && rollout.outbox.is_empty())
                .min_by_key(|rollout| (rollout.signed_at, rollout.id().clone()));
            let Some(rollout_id) = oldest.map(|rollout| rollout.id().clone()) else {
                return;
            };
            self.rollouts.remove(&rollout_id);
            self.commands.push(Command::Forget { rollout_id });
        }
    }

    fn rollout_ids(&self) -> Vec<RolloutId> {
        let followed = self.rollouts.iter().filter(|(_, r)| !r.replaced);
        followed.map(|(id, _)| id.clone()).collect()
    }

    fn note(&mut self, note: Notification) {
        self.commands.push(Command::Notify(note));
    }
}

#[cfg(test)]
pub(crate) mod tests;
