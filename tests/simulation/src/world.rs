//! The world of a run: hosts, processes, servers, and the order in which things happen to them.

mod checkpoint_loss;
pub mod detail;
pub mod env;
pub mod event;
pub mod fate;
mod faults;
mod heal;
pub mod host;
mod operator;
pub mod release;
mod releases;
pub mod serve;
pub mod status;

use std::rc::Rc;
use std::time::Duration;

use crate::checks::{Counts, Violation};
use crate::engine::{Time, Trace};
use crate::model::{Backup, Reply};
use crate::process::Process;
use crate::scenario::Scenario;
use env::Env;
use event::{Alive, Answer, AtHost, Caller, Event, ProcessId, Request};
use heal::Healing;
use host::Host;
use status::{Service, Status};

/// Longest run of events; more means that something spins.
const EVENTS_MAX: u64 = 3_000_000;
/// How often the run looks whether it is over.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often a backup of the database is made.
const BACKUP_EVERY: Duration = Duration::from_secs(60);

/// A run in progress.
pub struct World {
    env: Env,
    hosts: Vec<Host>,
    processes: Vec<Option<Process>>,
    scenario: Scenario,
    healing: Option<Healing>,
    backups: Vec<Backup>,
    is_over: bool,
    events: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
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
    /// How often the limits of the logs mattered.
    pub counts: Counts,
    /// Lines of the trace, when they were kept.
    pub lines: Vec<String>,
}

impl World {
    /// A world in which nothing happened yet.
    pub fn new(scenario: Scenario, trace: Trace) -> Self {
        let shape = Rc::clone(&scenario.shape);
        let mut env = Env::new(scenario.seed, Rc::clone(&shape), scenario.noise, trace);
        let hosts = shape.hosts.iter().enumerate();
        let hosts: Vec<_> = hosts
            .map(|(id, of)| Host::new(id, of, scenario.seed))
            .collect();
        for (service, count) in Service::ALL.into_iter().zip(shape.instances) {
            env.processes
                .extend((0..count).map(|number| Status::new(service, number)));
        }
        let mut world = Self {
            processes: env.processes.iter().map(|_| None).collect(),
            env,
            hosts,
            healing: None,
            backups: Vec::new(),
            is_over: false,
            events: 0,
            scenario,
        };
        world.begin();
        world
    }

    /// Plans everything that does not follow from something else.
    fn begin(&mut self) {
        let env = &mut self.env;
        for id in 0..env.processes.len() {
            let pause = Duration::from_millis(env.net.below(500));
            env.plan(pause, Event::Start(id));
        }
        for host in &self.hosts {
            let pause = Duration::from_millis(env.net.below(3_000));
            host.start_later(pause, false, env);
        }
        for (index, at) in self.scenario.shape.releases.iter().enumerate() {
            env.plan(*at, Event::Publish(index));
        }
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            env.plan(fault.at, Event::Fault(index));
        }
        env.plan(LOOK_EVERY, Event::Look);
    }

    /// Lets everything happen until the run is over or an invariant is broken.
    pub fn run(mut self) -> Outcome {
        while !self.is_over && self.env.checks.found.is_none() {
            let Some(event) = self.env.advance() else {
                break;
            };
            self.events += 1;
            if self.events > EVENTS_MAX {
                let spins = Err("events never end: something spins".to_owned());
                self.env.checks.hold("bounded", spins);
            }
            self.happen(event);
        }
        let trace = self.env.trace_so_far();
        Outcome {
            violation: self.env.checks.found.clone(),
            ended_at: self.env.now,
            trace_hash: trace.hash(),
            trace_lines: trace.lines(),
            events: self.events,
            entries: self.env.checks.entries,
            acknowledged: self.env.checks.acknowledged_count(),
            counts: self.env.checks.counts,
            lines: trace.kept().to_vec(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(caller, op) => {
                serve::serve(&mut self.env, caller, &op);
                if let Some(loss) = self.env.loss_at_trim.take_if(|_| op.is_trim()) {
                    self.lose_rows(loss);
                }
            }
            Event::Replied(caller, reply) => self.answered(caller, Some(reply)),
            Event::Expired(caller) => self.answered(caller, None),
            Event::Heartbeat(to, partition, heartbeat, asked) => {
                let frozen = self.frozen(to.id);
                if let Some(until) = frozen {
                    let event = Event::Heartbeat(to, partition, heartbeat, asked);
                    return self.env.plan_at(until, event);
                }
                if let Some(process) = self.alive(to) {
                    let process = self.processes[process].as_mut();
                    let process = process.expect("it is alive");
                    process.heartbeat(partition, *heartbeat, asked, &mut self.env);
                }
            }
            Event::Request(id, request) => self.requested(id, request),
            Event::LeaseOver(key, revision) => {
                if let Some(changed) = self.env.broker.leases.expire(&key, revision) {
                    serve::show(&mut self.env, changed);
                }
            }
            Event::Host(id, what) => self.hosts[id].take(what, &mut self.env),
            Event::Start(id) => self.start(id),
            Event::Kill(alive) => self.kill(alive),
            Event::Stop(id) => self.stop(id),
            Event::Fault(index) => self.fault(index),
            Event::FaultOver(index) => self.fault_over(index),
            Event::Publish(index) => self.publish(index),
            Event::Operator => self.operate(),
            Event::Look => self.look(),
        }
    }

    fn frozen(&self, id: ProcessId) -> Option<Time> {
        let until = self.env.processes[id].frozen_until;
        (self.env.now < until).then_some(until)
    }

    fn alive(&self, who: Alive) -> Option<ProcessId> {
        let status = &self.env.processes[who.id];
        (status.up && status.life == who.life).then_some(who.id)
    }

    fn answered(&mut self, caller: Caller, reply: Option<Reply>) {
        let Some(id) = self.alive(caller.process) else {
            return;
        };
        if let Some(until) = self.frozen(id) {
            let event = match reply {
                Some(reply) => Event::Replied(caller, reply),
                None => Event::Expired(caller),
            };
            return self.env.plan_at(until, event);
        }
        if let Some(process) = &mut self.processes[id] {
            process.take(caller.route, (caller.call, reply), &mut self.env);
            if caller.route == event::Route::Lease {
                self.check_leases(id);
            }
        }
    }

    /// Who holds what in the service of a process.
    fn check_leases(&mut self, id: ProcessId) {
        let Some(leases) = self.processes[id].as_ref().and_then(Process::leases) else {
            return;
        };
        let (service, now) = (self.env.processes[id].service, self.env.now);
        for key in leases.keys() {
            let others = self.processes.iter().zip(&self.env.processes);
            let holders = others.filter(|(process, status)| {
                let leases = process.as_ref().and_then(Process::leases);
                status.service == service
                    && leases.is_some_and(|leases| leases.is_held(now.since_start(), key))
            });
            if holders.clone().count() > 1 {
                let names: Vec<_> = holders.map(|(_, status)| status.name()).collect();
                self.env.checks.holders(now, service, (key, &names));
            }
        }
    }

    fn requested(&mut self, id: ProcessId, request: Request) {
        if let Some(until) = self.frozen(id) {
            return self.env.plan_at(until, Event::Request(id, request));
        }
        match &mut self.processes[id] {
            Some(process) => process.request(request, &mut self.env),
            // Nobody listens: the connection is refused.
            None => self.env.answer(request.from, Answer::Unavailable),
        }
    }

    fn start(&mut self, id: ProcessId) {
        let status = &mut self.env.processes[id];
        if status.up {
            return;
        }
        status.up = true;
        status.life += 1;
        let (service, me, name) = (status.service, status.alive(id), status.name());
        self.env
            .trace(format_args!("{name} starts, life {}", me.life));
        self.processes[id] = Process::start(service, me, &mut self.env);
    }

    /// The process is gone at once, in the middle of whatever it does, and comes back later.
    fn kill(&mut self, who: Alive) {
        let Some(id) = self.alive(who) else {
            return;
        };
        self.end(id, "dies");
        let pause = Duration::from_millis(self.env.net.range(1_000, 15_000));
        self.env.plan(pause, Event::Start(id));
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

    /// Asks a process to end; it is asked again until it has nothing left to do.
    fn stop(&mut self, id: ProcessId) {
        if let Some(until) = self.frozen(id) {
            return self.env.plan_at(until, Event::Stop(id));
        }
        let Some(process) = &mut self.processes[id] else {
            return;
        };
        if process.stop(&mut self.env) {
            self.end(id, "ends");
            if self.healing.is_some() {
                // It was to be back before it had ended.
                self.start(id);
            }
        } else {
            self.env.plan(Duration::from_millis(50), Event::Stop(id));
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
            host.lies_until = Time::ZERO;
            host.take(AtHost::Start { reboot: true }, &mut self.env);
        }
    }
}
