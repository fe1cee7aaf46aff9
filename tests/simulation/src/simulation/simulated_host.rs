//! One host: its machine, its agent, and the requests to the gateways.

mod activation;
mod machine;
mod requests;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use nixfleet_agent::agent_memory::AgentMemory;
use nixfleet_agent::core::{
    AgentConfig, AgentCore, Command, Input, Journal, Notification, SavedState,
};
use nixfleet_proto::{ClosureHash, Hostname, RolloutId};

use super::environment::Environment;
use super::event::{SimulatedHostEvent, SimulationEvent};
use crate::addressing::HostId;
use crate::engine::Time;
use crate::scenario::HostShape;

pub use machine::{Machine, PROBE_LIST_TIME, PROBE_TIME};

/// How long a machine is down when it reboots.
const REBOOT: Duration = Duration::from_secs(3);

/// A host.
#[derive(Debug)]
pub struct SimulatedHost {
    /// Its index.
    pub id: HostId,
    /// Its name.
    pub name: Hostname,
    /// The machine, whose state outlives the agent.
    pub machine: Machine,
    /// False while the host has no network.
    pub online: bool,
    /// How far its clock is ahead, in milliseconds.
    pub skew_ms: i64,
    /// Until when its heartbeats report a wrong closure.
    pub false_closures_until: Time,
    agent: Option<AgentCore>,
    life: u32,
    journals: BTreeMap<RolloutId, Journal>,
    memory: AgentMemory,
    pending: BTreeMap<u64, PendingRequest>,
    next_request: u64,
    tick_at: Option<Time>,
    poll_failures: u32,
}

/// A request that waits for its answer.
#[derive(Debug, Clone)]
enum PendingRequest {
    Events(RolloutId, Vec<u64>),
    Heartbeat,
    Poll,
    Artifacts(RolloutId),
}

/// Short waits, so that a rollout takes minutes; the proportions are those of production.
fn config() -> AgentConfig {
    AgentConfig {
        manifest_age_max: TimeDelta::seconds(1_000_000),
        sustained_failure: TimeDelta::seconds(45),
        probe_interval: TimeDelta::seconds(20),
        heartbeat_interval: TimeDelta::seconds(45),
        heartbeat_settle: TimeDelta::seconds(2),
        retry_first: TimeDelta::seconds(1),
        retry_max: TimeDelta::seconds(15),
        ..AgentConfig::default()
    }
}

impl SimulatedHost {
    /// A host that was never started.
    pub fn new(id: HostId, shape: &HostShape, seed: u64) -> Self {
        Self {
            id,
            name: shape.hostname(),
            machine: Machine::new(shape, seed),
            online: true,
            skew_ms: 0,
            false_closures_until: Time::ZERO,
            agent: None,
            life: 0,
            journals: BTreeMap::new(),
            memory: AgentMemory::default(),
            pending: BTreeMap::new(),
            next_request: 0,
            tick_at: None,
            poll_failures: 0,
        }
    }

    /// The agent, when it runs.
    pub fn agent(&self) -> Option<&AgentCore> {
        self.agent.as_ref()
    }

    /// Counts starts and crashes of the agent.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// Processes an event.
    pub fn take(&mut self, what: SimulatedHostEvent, env: &mut Environment) {
        match what {
            SimulatedHostEvent::Start { reboot } => self.start(reboot, env),
            SimulatedHostEvent::Reboot => self.reboot(env),
            SimulatedHostEvent::Tick(life) if life == self.life => {
                self.tick_at = None;
                self.feed(Input::Tick, env);
            }
            SimulatedHostEvent::Input(life, input) if life == self.life => self.feed(*input, env),
            SimulatedHostEvent::SwitchFinished(life, rollout_id, closure) => {
                self.switched(life, rollout_id, closure, env);
            }
            SimulatedHostEvent::RollbackFinished(life, rollout_id, closure) => {
                self.rolled_back(life, rollout_id, closure, env);
            }
            SimulatedHostEvent::ResponseArrives(request, response) if request.life == self.life => {
                self.answered(request.number, response, env);
            }
            SimulatedHostEvent::RequestTimesOut(request) if request.life == self.life => {
                self.request_expired(request.number, env)
            }
            SimulatedHostEvent::Poll(life) if life == self.life => self.poll(env),
            // Events of an earlier life of the agent.
            SimulatedHostEvent::Tick(_) | SimulatedHostEvent::Input(..) => {}
            SimulatedHostEvent::ResponseArrives(..)
            | SimulatedHostEvent::RequestTimesOut(..)
            | SimulatedHostEvent::Poll(_) => {}
        }
    }

    fn start(&mut self, reboot: bool, env: &mut Environment) {
        if self.agent.is_some() {
            return;
        }
        if reboot {
            self.machine.boot(env.now);
        }
        self.life += 1;
        let saved = SavedState {
            journals: self.journals.values().cloned().collect(),
            memory: self.memory.clone(),
        };
        self.agent = Some(AgentCore::new(self.name.clone(), config(), saved));
        env.trace(format_args!("{} starts, life {}", self.name, self.life));
        let current_closure = self.machine.running().clone();
        self.feed(Input::Started { current_closure }, env);
    }

    /// Ends the agent; its journal stays, and switches in progress go on.
    pub fn crash(&mut self, env: &mut Environment) {
        if self.agent.take().is_none() {
            return;
        }
        env.trace(format_args!("{} crashes", self.name));
        self.life += 1;
        self.pending.clear();
        self.tick_at = None;
    }

    /// Restarts the machine, which then runs the staged closure.
    fn reboot(&mut self, env: &mut Environment) {
        self.crash(env);
        self.machine.boot(env.now);
        self.start_later(REBOOT, false, env);
    }

    /// Deletes the journals and the memory, as a reinstallation does.
    pub fn forget(&mut self) {
        self.journals.clear();
        self.memory = AgentMemory::default();
    }

    /// Passes an input to the core and executes its commands in order. The agent may crash between two
    /// commands.
    /// With what the machine runs, as the shell does where a walk may begin or go on.
    fn feed_observed(&mut self, input: Input, env: &mut Environment) {
        let current_closure = self.machine.running().clone();
        self.feed(Input::MachineObserved { current_closure }, env);
        self.feed(input, env);
    }

    fn feed(&mut self, input: Input, env: &mut Environment) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = env.now.wall(self.skew_ms);
            let Some(agent) = &mut self.agent else {
                return;
            };
            for command in agent.step(input, now) {
                if env.chance(env.fault_rates.agent_crash) {
                    self.crash(env);
                    let pause = env.network_rng.range(200, 20_000);
                    self.start_later(Duration::from_millis(pause), false, env);
                    return;
                }
                if let Command::Switch { rollout_id, .. } = &command {
                    next = Some(Input::SwitchStarted {
                        rollout_id: rollout_id.clone(),
                        method: "simulated".to_owned(),
                    });
                }
                self.perform(command, env);
            }
        }
        self.plan_tick(env);
    }

    fn perform(&mut self, command: Command, env: &mut Environment) {
        match command {
            Command::Save(journal) => {
                let rollout_id = journal.record.rollout_id.clone();
                self.journals.insert(rollout_id, *journal);
            }
            Command::Remember(memory) => self.memory = *memory,
            Command::Forget { rollout_id } => {
                self.journals.remove(&rollout_id);
            }
            Command::Listen => self.poll(env),
            Command::FetchRelease { rollout_id } => self.fetch(rollout_id, env),
            Command::Switch {
                rollout_id,
                closure,
            } => self.switch(rollout_id, closure.closure_hash().clone(), env),
            Command::Rollback {
                rollout_id,
                closure,
            } => self.roll_back(rollout_id, closure.closure_hash().clone(), env),
            Command::ListProbes {
                rollout_id,
                generation,
            } => {
                let input = self.machine.list_probes(rollout_id, generation);
                self.later(PROBE_LIST_TIME, input, env);
            }
            Command::RunProbe {
                rollout_id,
                generation,
                probe_name,
            } => {
                let of = (rollout_id, generation);
                let input = self.machine.run_probe(of, probe_name, env.now);
                self.later(PROBE_TIME, input, env);
            }
            Command::Send(request) => self.send(request, env),
            Command::Heartbeat(request) => self.heartbeat(request, env),
            Command::Notify(note) => self.note(&note, env),
        }
    }

    fn note(&self, note: &Notification, env: &mut Environment) {
        match note {
            Notification::Transition {
                rollout_id,
                from,
                to,
                ..
            } => env.trace(format_args!("{} {rollout_id} {from:?} > {to:?}", self.name)),
            Notification::Recovered {
                rollout_id,
                from,
                to,
            } => env.trace(format_args!(
                "{} {rollout_id} {from:?} > {to:?} (recovered)",
                self.name
            )),
            Notification::Refused {
                rollout_id, reason, ..
            } => env.trace(format_args!("{} refuses {rollout_id}: {reason}", self.name)),
            Notification::Unexpected {
                rollout_id,
                kind,
                rejection,
            } => env.trace(format_args!(
                "{} {rollout_id} {kind} not as expected: {}",
                self.name, rejection.message
            )),
            Notification::EventRefused {
                rollout_id, seq, ..
            }
            | Notification::Dropped { rollout_id, seq } => {
                env.trace(format_args!(
                    "{} gives up event {rollout_id} {seq}",
                    self.name
                ));
            }
            Notification::DispatchHeld { .. }
            | Notification::Delivered { .. }
            | Notification::OutOfSequences { .. }
            | Notification::RollbackFailed { .. } => {}
        }
    }

    fn later(&self, pause: Duration, input: Input, env: &mut Environment) {
        let event = SimulatedHostEvent::Input(self.life, Box::new(input));
        env.schedule(pause, SimulationEvent::Host(self.id, event));
    }

    /// Starts the agent after a pause.
    pub fn start_later(&self, pause: Duration, reboot: bool, env: &mut Environment) {
        env.schedule(
            pause,
            SimulationEvent::Host(self.id, SimulatedHostEvent::Start { reboot }),
        );
    }

    fn plan_tick(&mut self, env: &mut Environment) {
        let Some(deadline) = self.agent.as_ref().and_then(AgentCore::next_deadline) else {
            return;
        };
        // A deadline in the past must not repeat without end.
        let at = Time::of_wall(deadline, self.skew_ms).max(env.now + Duration::from_millis(5));
        if self.tick_at.is_some_and(|planned| planned <= at) {
            return;
        }
        self.tick_at = Some(at);
        env.schedule_at(
            at,
            SimulationEvent::Host(self.id, SimulatedHostEvent::Tick(self.life)),
        );
    }

    /// The running closure.
    pub fn running(&self) -> &ClosureHash {
        self.machine.running()
    }
}
