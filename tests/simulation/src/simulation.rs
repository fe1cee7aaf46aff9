//! A run: hosts, processes and servers, driven by the events of one queue in virtual time.

mod checkpoint_loss;
pub mod closure_behavior;
pub mod entry_summary;
pub mod environment;
pub mod event;
mod fault_injection;
mod operator;
pub mod process_status;
mod recovery_phase;
mod release_publication;
pub mod servers;
pub mod simulated_host;

use std::rc::Rc;
use std::time::Duration;

use crate::addressing::{Caller, Incarnation, ProcessId, Route, Service};
use crate::engine::{Time, Trace};
use crate::gateway_messages::{GatewayRequest, GatewayResponse};
use crate::invariant_monitor::{LogCounts, Violation};
use crate::scenario::Scenario;
use crate::services::ServiceProcess;
use crate::simulated_servers::{Backup, CallResult, ServerReply};
use environment::Environment;
use event::{SimulatedHostEvent, SimulationEvent};
use process_status::ProcessStatus;
use simulated_host::SimulatedHost;

/// Most events of a run; more means that an actor repeats itself without end.
const EVENTS_MAX: u64 = 3_000_000;
/// How often the run checks whether its phase is over.
const PROGRESS_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How often a backup of the database is made.
const BACKUP_EVERY: Duration = Duration::from_secs(60);

/// A run in progress.
pub struct Simulation {
    env: Environment,
    hosts: Vec<SimulatedHost>,
    processes: Vec<Option<ServiceProcess>>,
    scenario: Scenario,
    recovery_phase: Option<RecoveryPhase>,
    backups: Vec<Backup>,
    is_over: bool,
    events: u64,
}

/// The phase without faults, in which everything has to finish.
#[derive(Debug, Clone, Copy)]
struct RecoveryPhase {
    begun: Time,
    until: Time,
    operated_at: Option<Time>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunResult {
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// Virtual time at the end.
    pub ended_at: Time,
    /// Hash of the trace.
    pub trace_hash: u64,
    /// Lines of the trace.
    pub trace_lines: u64,
    /// Events of the simulation.
    pub events: u64,
    /// Entries in the input logs.
    pub entries: u64,
    /// Events of hosts that were acknowledged.
    pub acknowledged: u64,
    /// How often logs were trimmed or refused a message.
    pub counts: LogCounts,
    /// Lines of the trace, when they were kept.
    pub lines: Vec<String>,
}

impl Simulation {
    /// A simulation at time zero.
    pub fn new(scenario: Scenario, trace: Trace) -> Self {
        let shape = Rc::clone(&scenario.shape);
        let mut env = Environment::new(
            scenario.seed,
            Rc::clone(&shape),
            scenario.fault_rates,
            trace,
        );
        let hosts = shape.hosts.iter().enumerate();
        let hosts: Vec<_> = hosts
            .map(|(id, of)| SimulatedHost::new(id, of, scenario.seed))
            .collect();
        for (service, count) in Service::ALL.into_iter().zip(shape.instances) {
            env.processes
                .extend((0..count).map(|number| ProcessStatus::new(service, number)));
        }
        let mut simulation = Self {
            processes: env.processes.iter().map(|_| None).collect(),
            env,
            hosts,
            recovery_phase: None,
            backups: Vec::new(),
            is_over: false,
            events: 0,
            scenario,
        };
        simulation.begin();
        simulation
    }

    /// Schedules the first events: starts, releases, faults and the progress check.
    fn begin(&mut self) {
        let env = &mut self.env;
        for id in 0..env.processes.len() {
            let pause = Duration::from_millis(env.network_rng.below(500));
            env.schedule(pause, SimulationEvent::StartProcess(id));
        }
        for host in &self.hosts {
            let pause = Duration::from_millis(env.network_rng.below(3_000));
            host.start_later(pause, false, env);
        }
        for (index, at) in self.scenario.shape.releases.iter().enumerate() {
            env.schedule(*at, SimulationEvent::PublishRelease(index));
        }
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            env.schedule(fault.at, SimulationEvent::FaultBegins(index));
        }
        env.schedule(PROGRESS_CHECK_INTERVAL, SimulationEvent::CheckProgress);
    }

    /// Processes events until the run is over or an invariant is violated.
    pub fn run(mut self) -> RunResult {
        while !self.is_over && self.env.invariants.violation.is_none() {
            let Some(event) = self.env.advance() else {
                break;
            };
            self.events += 1;
            if self.events > EVENTS_MAX {
                let spins = Err("more events than a run may have".to_owned());
                self.env.invariants.record("bounded", spins);
            }
            self.process_event(event);
        }
        let trace = self.env.trace_so_far();
        RunResult {
            violation: self.env.invariants.violation.clone(),
            ended_at: self.env.now,
            trace_hash: trace.hash(),
            trace_lines: trace.lines(),
            events: self.events,
            entries: self.env.invariants.entries,
            acknowledged: self.env.invariants.acknowledged_count(),
            counts: self.env.invariants.counts,
            lines: trace.kept().to_vec(),
        }
    }

    fn process_event(&mut self, event: SimulationEvent) {
        match event {
            SimulationEvent::CallArrives(caller, request) => {
                servers::serve(&mut self.env, caller, &request);
                if let Some(loss) = self.env.row_loss_at_trim.take_if(|_| request.is_trim()) {
                    self.lose_rows(loss);
                }
            }
            SimulationEvent::ReplyArrives(caller, reply) => self.deliver_reply(caller, Some(reply)),
            SimulationEvent::TimerExpires(caller) => self.deliver_reply(caller, None),
            SimulationEvent::HeartbeatArrives {
                to,
                partition,
                heartbeat,
                caller,
            } => {
                let frozen = self.frozen_until(to.id);
                if let Some(until) = frozen {
                    let event = SimulationEvent::HeartbeatArrives {
                        to,
                        partition,
                        heartbeat,
                        caller,
                    };
                    return self.env.schedule_at(until, event);
                }
                if let Some(process) = self.running_process(to) {
                    let process = self.processes[process].as_mut();
                    let process = process.expect("it is alive");
                    process.heartbeat(partition, *heartbeat, caller, &mut self.env);
                }
            }
            SimulationEvent::RequestArrives(id, request) => self.deliver_request(id, request),
            SimulationEvent::LeaseExpires(key, revision) => {
                if let Some(changed) = self.env.broker.leases.expire(&key, revision) {
                    servers::show(&mut self.env, changed);
                }
            }
            SimulationEvent::Host(id, what) => self.hosts[id].take(what, &mut self.env),
            SimulationEvent::StartProcess(id) => self.start(id),
            SimulationEvent::KillProcess(alive) => self.kill(alive),
            SimulationEvent::StopProcess(id) => self.stop(id),
            SimulationEvent::FaultBegins(index) => self.fault(index),
            SimulationEvent::FaultEnds(index) => self.fault_over(index),
            SimulationEvent::PublishRelease(index) => self.publish(index),
            SimulationEvent::OperatorCommands => self.operate(),
            SimulationEvent::CheckProgress => self.check_progress(),
        }
    }

    fn frozen_until(&self, id: ProcessId) -> Option<Time> {
        let until = self.env.processes[id].frozen_until;
        (self.env.now < until).then_some(until)
    }

    fn running_process(&self, who: Incarnation) -> Option<ProcessId> {
        let status = &self.env.processes[who.id];
        (status.up && status.life == who.life).then_some(who.id)
    }

    fn deliver_reply(&mut self, caller: Caller, reply: Option<ServerReply>) {
        let Some(id) = self.running_process(caller.process) else {
            return;
        };
        if let Some(until) = self.frozen_until(id) {
            let event = match reply {
                Some(reply) => SimulationEvent::ReplyArrives(caller, reply),
                None => SimulationEvent::TimerExpires(caller),
            };
            return self.env.schedule_at(until, event);
        }
        if let Some(process) = &mut self.processes[id] {
            let call = caller.call;
            process.take(caller.route, CallResult { call, reply }, &mut self.env);
            if caller.route == Route::Lease {
                self.check_leases(id);
            }
        }
    }

    /// Checks that no lease of the service of a process has two holders.
    fn check_leases(&mut self, id: ProcessId) {
        let Some(leases) = self.processes[id].as_ref().and_then(ServiceProcess::leases) else {
            return;
        };
        let (service, now) = (self.env.processes[id].service, self.env.now);
        for key in leases.keys() {
            let others = self.processes.iter().zip(&self.env.processes);
            let holders = others.filter(|(process, status)| {
                let leases = process.as_ref().and_then(ServiceProcess::leases);
                status.service == service
                    && leases.is_some_and(|leases| leases.is_held(now.since_start(), key))
            });
            if holders.clone().count() > 1 {
                let names: Vec<_> = holders.map(|(_, status)| status.name()).collect();
                self.env.invariants.holders(now, service, (key, &names));
            }
        }
    }

    fn deliver_request(&mut self, id: ProcessId, request: GatewayRequest) {
        if let Some(until) = self.frozen_until(id) {
            return self
                .env
                .schedule_at(until, SimulationEvent::RequestArrives(id, request));
        }
        match &mut self.processes[id] {
            Some(process) => process.request(request, &mut self.env),
            // The process is down: the connection is refused.
            None => self.env.answer(request.from, GatewayResponse::Unavailable),
        }
    }

    fn start(&mut self, id: ProcessId) {
        let status = &mut self.env.processes[id];
        if status.up {
            return;
        }
        status.up = true;
        status.life += 1;
        let (service, me, name) = (status.service, status.incarnation(id), status.name());
        self.env
            .trace(format_args!("{name} starts, life {}", me.life));
        self.processes[id] = ServiceProcess::start(service, me, &mut self.env);
    }

    /// Ends a process without notice and starts it again later.
    fn kill(&mut self, who: Incarnation) {
        let Some(id) = self.running_process(who) else {
            return;
        };
        self.end(id, "dies");
        let pause = Duration::from_millis(self.env.network_rng.range(1_000, 15_000));
        self.env.schedule(pause, SimulationEvent::StartProcess(id));
    }

    fn end(&mut self, id: ProcessId, how: &str) {
        let status = &mut self.env.processes[id];
        status.up = false;
        let name = status.name();
        self.env.trace(format_args!("{name} {how}"));
        self.processes[id] = None;
        for owners in self.env.owners.values_mut() {
            owners.retain(|owner| owner.id != id);
        }
    }

    /// Asks a process to stop, repeatedly until it has no work left.
    fn stop(&mut self, id: ProcessId) {
        if let Some(until) = self.frozen_until(id) {
            return self
                .env
                .schedule_at(until, SimulationEvent::StopProcess(id));
        }
        let Some(process) = &mut self.processes[id] else {
            return;
        };
        if process.stop(&mut self.env) {
            self.end(id, "ends");
            if self.recovery_phase.is_some() {
                // In this phase every process has to run.
                self.start(id);
            }
        } else {
            self.env
                .schedule(Duration::from_millis(50), SimulationEvent::StopProcess(id));
        }
    }

    /// Starts agents and processes that are down.
    fn start_everything(&mut self) {
        for id in 0..self.processes.len() {
            self.start(id);
        }
        for host in &mut self.hosts {
            host.online = true;
            host.skew_ms = 0;
            host.false_closures_until = Time::ZERO;
            host.take(SimulatedHostEvent::Start { reboot: true }, &mut self.env);
        }
    }
}
