//! One host: its machine, its real agent, and the requests to whichever control plane there is.

mod machine_work;
mod requests;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use chrono::TimeDelta;
use nixfleet_agent::activation_guard::{ActivationGuard, ObservedClosures};
use nixfleet_agent::agent_memory::AgentMemory;
use nixfleet_agent::core::{
    AgentConfig, AgentCore, Command, Input, Journal, Notification, SavedState,
};
use nixfleet_proto::{ClosureHash, Hostname, RolloutId};

use super::host_event::{HostEvent, HostFault};
use super::reports::Reports;
use super::run_state::RunState;
use super::walks::{AGE_MAX, Walks};
use crate::engine::Time;
use crate::run::panic_message;
use crate::scenario::HostShape;
use crate::simulation::simulated_host::{Machine, PROBE_LIST_TIME, PROBE_TIME};

/// The closure of a machine that was just installed.
const INSTALLED: &str = "installed";
/// How long a machine is down when it boots.
const BOOT: Duration = Duration::from_secs(3);

/// A host.
#[derive(Debug)]
pub struct AttackedHost {
    /// Its number.
    pub number: usize,
    /// Its name.
    pub name: Hostname,
    /// The machine.
    pub machine: Machine,
    /// What must hold of its switches and rollbacks.
    pub walks: Walks,
    reports: Reports,
    skew_ms: i64,
    agent: Option<AgentCore>,
    life: u32,
    journals: BTreeMap<RolloutId, Journal>,
    memory: AgentMemory,
    observations: ObservedClosures,
    guard: ActivationGuard,
    tick_at: Option<Time>,
    poll_failures: u32,
}

/// Short waits, so that a walk takes minutes; the proportions are those of production.
fn config() -> AgentConfig {
    AgentConfig {
        manifest_age_max: AGE_MAX,
        sustained_failure: TimeDelta::seconds(30),
        probe_interval: TimeDelta::seconds(15),
        heartbeat_interval: TimeDelta::seconds(20),
        heartbeat_settle: TimeDelta::seconds(2),
        retry_first: TimeDelta::seconds(1),
        retry_max: TimeDelta::seconds(15),
        ..AgentConfig::default()
    }
}

impl AttackedHost {
    /// A host that was never started.
    pub fn new(number: usize, shape: &HostShape, seed: u64, skew_ms: i64) -> Self {
        Self {
            number,
            name: shape.hostname(),
            machine: Machine::new(shape, seed),
            walks: Walks::new(&shape.name),
            reports: Reports::new(&shape.name),
            skew_ms,
            agent: None,
            life: 0,
            journals: BTreeMap::new(),
            memory: AgentMemory::default(),
            observations: ObservedClosures::default(),
            guard: ActivationGuard::new(shape.hostname(), ObservedClosures::default()),
            tick_at: None,
            poll_failures: 0,
        }
    }

    /// Processes an event.
    pub fn take(&mut self, event: HostEvent, run_state: &mut RunState) {
        match event {
            HostEvent::Start => self.start(run_state),
            HostEvent::Tick(life) if life == self.life => {
                self.tick_at = None;
                self.feed(Input::Tick, run_state);
            }
            HostEvent::Input(life, input) if life == self.life => self.feed(*input, run_state),
            HostEvent::ArtifactsArrive(life, rollout_id, artifacts) if life == self.life => {
                self.artifacts_arrive(rollout_id, artifacts.map(|artifacts| *artifacts), run_state);
            }
            HostEvent::PollEnds(life, offer) if life == self.life => {
                self.poll_ends(offer.map(|offer| *offer), run_state);
            }
            HostEvent::Poll(life) if life == self.life => self.poll(run_state),
            HostEvent::SwitchFinished(life, rollout_id, closure) => {
                self.switch_finished(life, rollout_id, closure, run_state);
            }
            HostEvent::RollbackFinished(life, rollout_id, closure) => {
                self.rollback_finished(life, rollout_id, closure, run_state);
            }
            HostEvent::Fault(fault) => self.fault(fault, run_state),
            HostEvent::Reboot => self.reboot(run_state),
            // Events of an earlier life.
            HostEvent::Tick(_) | HostEvent::Input(..) | HostEvent::ArtifactsArrive(..) => {}
            HostEvent::PollEnds(..) | HostEvent::Poll(_) => {}
        }
    }

    fn start(&mut self, run_state: &mut RunState) {
        if self.agent.is_some() {
            return;
        }
        self.life += 1;
        self.walks.started();
        self.reports.started();
        run_state.trace(format_args!("{} starts, life {}", self.name, self.life));
        let saved = SavedState {
            journals: self.journals.values().cloned().collect(),
            memory: self.memory.clone(),
        };
        self.agent = Some(AgentCore::new(self.name.clone(), config(), saved));
        self.guard = ActivationGuard::new(self.name.clone(), self.observations.clone());
        let current_closure = self.machine.running().clone();
        self.feed(Input::Started { current_closure }, run_state);
    }

    fn crash(&mut self, run_state: &mut RunState) {
        if self.agent.take().is_some() {
            run_state.trace(format_args!("{} crashes", self.name));
            run_state.coverage.crashes += 1;
            self.life += 1;
            self.tick_at = None;
        }
    }

    fn start_later(&self, pause: Duration, run_state: &mut RunState) {
        run_state.schedule(pause, self.number, HostEvent::Start);
    }

    fn fault(&mut self, fault: HostFault, run_state: &mut RunState) {
        run_state.trace(format_args!("{} {fault:?}", self.name));
        self.crash(run_state);
        match fault {
            HostFault::Crash => {}
            HostFault::PowerLoss => {
                run_state.coverage.power_losses += 1;
                self.machine.boot(run_state.now);
            }
            HostFault::LostDisk => self.lose_disk(run_state),
            HostFault::Reinstallation => {
                self.lose_disk(run_state);
                self.machine
                    .run(ClosureHash::from(INSTALLED), run_state.now);
            }
        }
        let pause = Duration::from_millis(run_state.rng.range(200, 20_000));
        self.start_later(pause, run_state);
    }

    /// The agent forgets everything, and so does the promise about it.
    fn lose_disk(&mut self, run_state: &mut RunState) {
        run_state.coverage.lost_disks += 1;
        self.count_walks(run_state);
        self.journals.clear();
        self.memory = AgentMemory::default();
        self.observations = ObservedClosures::default();
        self.walks = Walks::new(self.name.as_str());
        self.reports = Reports::new(self.name.as_str());
    }

    /// Adds the walks of this disk to the coverage.
    pub fn count_walks(&self, run_state: &mut RunState) {
        let mut count = 0;
        for state in self.walks.furthest() {
            *run_state.coverage.walks.entry(state).or_default() += 1;
            count += 1;
        }
        *run_state.coverage.walks_in_a_row.entry(count).or_default() += 1;
    }

    fn reboot(&mut self, run_state: &mut RunState) {
        self.crash(run_state);
        self.machine.boot(run_state.now);
        self.start_later(BOOT, run_state);
    }

    /// Passes an input to the core and executes its commands in order. The agent may crash between two
    /// commands.
    /// With what the machine runs, as the shell does where a walk may begin or go on.
    fn feed_observed(&mut self, input: Input, run_state: &mut RunState) {
        let current_closure = self.machine.running().clone();
        self.feed(Input::MachineObserved { current_closure }, run_state);
        self.feed(input, run_state);
    }

    fn feed(&mut self, input: Input, run_state: &mut RunState) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(commands) = self.step(input, run_state) else {
                return;
            };
            for command in commands {
                if run_state.violation.is_some() {
                    return;
                }
                if run_state.rng.chance(run_state.crash_rate) {
                    self.crash(run_state);
                    let pause = Duration::from_millis(run_state.rng.range(200, 20_000));
                    return self.start_later(pause, run_state);
                }
                run_state.check("closures", self.walks.executed(&command));
                run_state.check("order", self.reports.executed(&command));
                if let Command::Switch { rollout_id, .. } = &command {
                    next = Some(Input::SwitchStarted {
                        rollout_id: rollout_id.clone(),
                        method: "simulated".to_owned(),
                    });
                }
                self.perform(command, run_state);
            }
        }
        self.plan_tick(run_state);
    }

    fn step(&mut self, input: Input, run_state: &mut RunState) -> Option<Vec<Command>> {
        let now = run_state.now.wall(self.skew_ms);
        self.walks.input(&input);
        self.reports.input(&input);
        let agent = self.agent.as_mut()?;
        let stepped = catch_unwind(AssertUnwindSafe(|| agent.step(input, now)));
        match stepped {
            Ok(commands) => {
                for command in &commands {
                    let running = self.machine.running();
                    run_state.check("closures", self.walks.returned(command, running));
                }
                Some(commands)
            }
            Err(payload) => {
                let message = format!("{}: {}", self.name, panic_message(&*payload));
                run_state.check("panics", Err(message));
                None
            }
        }
    }

    fn perform(&mut self, command: Command, run_state: &mut RunState) {
        match command {
            Command::Save(journal) => {
                let rollout_id = journal.record.rollout_id.clone();
                self.journals.insert(rollout_id, *journal);
            }
            Command::Remember(memory) => self.memory = *memory,
            Command::Forget { rollout_id } => {
                self.journals.remove(&rollout_id);
                if self.guard.forget(&rollout_id) {
                    self.observations = self.guard.observations().clone();
                }
            }
            Command::Listen => self.poll(run_state),
            Command::FetchRelease { rollout_id } => self.fetch(rollout_id, run_state),
            Command::Switch {
                rollout_id,
                closure,
            } => self.switch(rollout_id, closure.closure_hash().clone(), run_state),
            Command::Rollback {
                rollout_id,
                closure,
            } => self.roll_back(rollout_id, closure.closure_hash().clone(), run_state),
            Command::ListProbes {
                rollout_id,
                generation,
            } => {
                let input = self.machine.list_probes(rollout_id, generation);
                self.later(PROBE_LIST_TIME, input, run_state);
            }
            Command::RunProbe {
                rollout_id,
                generation,
                probe_name,
            } => {
                let of = (rollout_id, generation);
                let input = self.machine.run_probe(of, probe_name, run_state.now);
                self.later(PROBE_TIME, input, run_state);
            }
            Command::Send(requests) => self.send(&requests, run_state),
            Command::Heartbeat(request) => self.heartbeat(&request, run_state),
            Command::Notify(note) => {
                run_state.coverage.refusals +=
                    u64::from(matches!(note, Notification::Refused { .. }));
                run_state.trace(format_args!("{} notes {note:?}", self.name));
            }
        }
    }

    fn later(&self, pause: Duration, input: Input, run_state: &mut RunState) {
        let event = HostEvent::Input(self.life, Box::new(input));
        run_state.schedule(pause, self.number, event);
    }

    fn plan_tick(&mut self, run_state: &mut RunState) {
        let Some(deadline) = self.agent.as_ref().and_then(AgentCore::next_deadline) else {
            return;
        };
        // A deadline in the past must not repeat without end.
        let at =
            Time::of_wall(deadline, self.skew_ms).max(run_state.now + Duration::from_millis(5));
        if self.tick_at.is_some_and(|planned| planned <= at) {
            return;
        }
        self.tick_at = Some(at);
        run_state.schedule(at - run_state.now, self.number, HostEvent::Tick(self.life));
    }
}
