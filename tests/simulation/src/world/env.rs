//! Everything around one actor while it acts: time, network, servers, what is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ClosureHash, Hostname, PinnedSet, Timestamp};

use super::event::{
    Alive, Answer, AtHost, Caller, Event, HostId, ProcessId, Request, RequestBody, Requester, Route,
};
use super::release::Release;
use super::status::{CrashPoint, Status};
use crate::checks::Checks;
use crate::engine::{Queue, Rng, Time, Trace};
use crate::model::{Broker, Database, Op, Reply, Server};
use crate::scenario::{Noise, RowLoss, Shape};

/// How long a process waits for a server.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for a fetch, which waits for news.
const FETCH_PATIENCE: Duration = Duration::from_secs(30);

/// The surroundings.
#[derive(Debug)]
pub struct Env {
    /// The present.
    pub now: Time,
    /// The seed.
    pub seed: u64,
    /// Delays and losses.
    pub net: Rng,
    /// What goes wrong by itself.
    pub noise: Noise,
    /// The fleet.
    pub shape: Rc<Shape>,
    /// Published releases, oldest first.
    pub releases: Vec<Rc<Release>>,
    /// The broker.
    pub broker: Broker,
    /// The database.
    pub database: Database,
    /// What must hold.
    pub checks: Checks,
    /// How the processes are.
    pub processes: Vec<Status>,
    /// Who answers heartbeats of a partition.
    pub owners: BTreeMap<Partition, Vec<Alive>>,
    /// What manifests pin: the object store.
    pub pinned: PinnedSet,
    /// Until when heartbeats come several times and name any closure.
    pub storm_until: Time,
    /// Until when the broker is down.
    pub broker_back_at: Time,
    /// Until when the database is down.
    pub database_back_at: Time,
    /// Rows that are lost as soon as a log was trimmed.
    pub loss_at_trim: Option<RowLoss>,
    queue: Queue<Event>,
    trace: Trace,
    /// When the last message on a connection arrives: connections keep their order.
    last_arrival: BTreeMap<(ProcessId, Server), Time>,
    /// The same for answers.
    last_answer: BTreeMap<(ProcessId, Server), Time>,
}

impl Env {
    /// A world in which nothing happened.
    pub fn new(seed: u64, shape: Rc<Shape>, noise: Noise, trace: Trace) -> Self {
        Self {
            now: Time::ZERO,
            seed,
            net: Rng::new(seed, "net"),
            noise,
            releases: Vec::new(),
            broker: Broker::new(shape.partitions, noise.retried, shape.log_limits),
            database: Database::new(),
            checks: Checks::new(&shape),
            processes: Vec::new(),
            owners: BTreeMap::new(),
            pinned: BTreeMap::new(),
            storm_until: Time::ZERO,
            broker_back_at: Time::ZERO,
            database_back_at: Time::ZERO,
            loss_at_trim: None,
            queue: Queue::default(),
            trace,
            last_arrival: BTreeMap::new(),
            last_answer: BTreeMap::new(),
            shape,
        }
    }

    /// What the wall clock of a process shows.
    pub fn wall(&self, process: Alive) -> Timestamp {
        self.now.wall(self.processes[process.id].skew_ms)
    }

    /// Name of a host.
    pub fn hostname(&self, host: HostId) -> Hostname {
        Hostname::from(self.shape.hosts[host].name.as_str())
    }

    /// Adds a line to the trace.
    pub fn trace(&mut self, text: fmt::Arguments<'_>) {
        self.trace.line(self.now, text);
    }

    /// The trace so far.
    pub fn trace_so_far(&self) -> &Trace {
        &self.trace
    }

    /// Plans an event after a pause.
    pub fn plan(&mut self, pause: Duration, event: Event) {
        self.queue.push(self.now + pause, event);
    }

    /// Plans an event.
    pub fn plan_at(&mut self, at: Time, event: Event) {
        self.queue.push(at.max(self.now), event);
    }

    /// Moves on to the next event.
    pub fn advance(&mut self) -> Option<Event> {
        let (at, event) = self.queue.pop()?;
        self.now = at;
        Some(event)
    }

    /// True in `permille` of 1,000 cases.
    pub fn strikes(&mut self, permille: u32) -> bool {
        self.net.chance(permille)
    }

    /// Closures that hosts may run, for those who lie.
    pub fn known_closures(&self) -> Vec<ClosureHash> {
        let mut closures = vec![ClosureHash::from("installed")];
        for release in &self.releases {
            for pinned in release.pinned.values() {
                let hosts = pinned.pinned.host_set.iter();
                closures.extend(hosts.map(|host| host.target_closure.clone()));
            }
        }
        closures.sort_unstable();
        closures.dedup();
        closures
    }

    /// Asks a server; the answer, or that none came, is an event.
    pub fn call(&mut self, process: Alive, route: Route, op: Op) -> u64 {
        let patience = if matches!(op, Op::Fetch(..)) {
            FETCH_PATIENCE
        } else {
            PATIENCE
        };
        let call = self.timer(process, route, patience);
        let caller = Caller {
            process,
            route,
            call,
        };
        if self.is_spared(process, &op) {
            self.send(caller, Rc::new(op));
        }
        call
    }

    /// False when the process dies before this call leaves; it may also die right after it.
    fn is_spared(&mut self, process: Alive, op: &Op) -> bool {
        let (before, after) = if matches!(op, Op::Publish(..)) {
            (Some(CrashPoint::BeforePublish), CrashPoint::AfterPublish)
        } else if matches!(op, Op::Apply(_) | Op::Restore(_) | Op::Archive(..)) {
            (Some(CrashPoint::BeforeCommit), CrashPoint::AfterCommit)
        } else if matches!(op, Op::Trim(..)) {
            (Some(CrashPoint::BeforeTrim), CrashPoint::AfterTrim)
        } else if matches!(op, Op::PutCheckpoint(..)) {
            (None, CrashPoint::AfterStore)
        } else {
            return true;
        };
        let status = &mut self.processes[process.id];
        let name = status.name();
        let dies_before = before.is_some_and(|before| status.dies_at(before));
        let dies_after = status.dies_at(after);
        if dies_before || dies_after {
            self.trace(format_args!("{name} is to die"));
            self.plan(Duration::ZERO, Event::Kill(process));
        }
        !dies_before
    }

    /// As [`Self::call`], with as many answers as come.
    pub fn open(&mut self, process: Alive, route: Route, op: Op) -> u64 {
        let call = self.processes[process.id].next_call();
        let caller = Caller {
            process,
            route,
            call,
        };
        self.send(caller, Rc::new(op));
        call
    }

    /// Lets a part of a process know after a pause.
    pub fn timer(&mut self, process: Alive, route: Route, pause: Duration) -> u64 {
        let call = self.processes[process.id].next_call();
        let caller = Caller {
            process,
            route,
            call,
        };
        self.plan(pause, Event::Expired(caller));
        call
    }

    /// Sends something nobody waits for.
    pub fn cast(&mut self, process: Alive, op: Op) {
        let call = self.processes[process.id].next_call();
        let caller = Caller {
            process,
            route: Route::Whole,
            call,
        };
        self.send(caller, Rc::new(op));
    }

    /// Lets the answer of a server travel back.
    pub fn reply(&mut self, caller: Caller, server: Server, reply: Reply) {
        let is_cut = self.processes[caller.process.id].is_cut(server, self.now);
        if is_cut || self.strikes(self.noise.lost_reply) {
            return;
        }
        self.deliver(caller, server, reply);
    }

    /// The same without losing it: answers on one connection keep their order.
    pub fn deliver(&mut self, caller: Caller, server: Server, reply: Reply) {
        let key = (caller.process.id, server);
        let delay = self.delay_of(caller.process.id, server);
        let before = self.last_answer.get(&key).copied().unwrap_or_default();
        let at = (self.now + delay).max(before);
        self.last_answer.insert(key, at);
        self.plan_at(at, Event::Replied(caller, reply));
    }

    fn send(&mut self, caller: Caller, op: Rc<Op>) {
        let id = caller.process.id;
        let server = op.server();
        if self.processes[id].is_cut(server, self.now) || self.strikes(self.noise.lost_call) {
            return;
        }
        let key = (id, server);
        let delay = self.delay_of(id, server);
        let before = self.last_arrival.get(&key).copied().unwrap_or_default();
        let at = (self.now + delay).max(before);
        self.last_arrival.insert(key, at);
        if matches!(*op, Op::Publish(..)) && self.strikes(self.noise.twice) {
            let again = self.delay(server);
            self.plan_at(at + again, Event::Arrive(caller, Rc::clone(&op)));
        }
        self.plan_at(at, Event::Arrive(caller, op));
    }

    fn delay_of(&mut self, process: ProcessId, server: Server) -> Duration {
        if self.processes[process].lags(server, self.now) {
            return Duration::from_millis(self.net.range(300, 2_400));
        }
        self.delay(server)
    }

    /// Time of one way between a process and a server.
    pub fn delay(&mut self, server: Server) -> Duration {
        if self.strikes(self.noise.slow) {
            return Duration::from_millis(self.net.range(200, 9_000));
        }
        let micros = match server {
            Server::Publishing | Server::Reading | Server::Leasing => self.net.range(150, 1_500),
            Server::Database => self.net.range(400, 4_000),
        };
        Duration::from_micros(micros)
    }

    /// Time of one way between a host and a gateway.
    pub fn far_delay(&mut self) -> Duration {
        if self.strikes(self.noise.slow) {
            return Duration::from_millis(self.net.range(500, 12_000));
        }
        Duration::from_millis(self.net.range(2, 40))
    }

    /// Sends a request to some gateway; nobody knows which of them are up.
    pub fn request(&mut self, request: Request) {
        let gateways = self.shape.instances[0];
        let to = self.net.index(gateways);
        if self.strikes(self.noise.lost_request) {
            return;
        }
        if self.now < self.storm_until && matches!(request.body, RequestBody::Heartbeat(_)) {
            for _ in 0..2 {
                let again = Duration::from_millis(self.net.below(3_000));
                self.plan(again, Event::Request(to, request.clone()));
            }
        }
        let delay = self.far_delay();
        self.plan(delay, Event::Request(to, request));
    }

    /// Sends the answer of a gateway to whoever asked.
    pub fn answer(&mut self, to: Requester, answer: Answer) {
        let Requester::Agent(host, life, number) = to else {
            return;
        };
        if self.strikes(self.noise.lost_request) {
            return;
        }
        let delay = self.far_delay();
        let answered = AtHost::Answered(life, number, answer);
        self.plan(delay, Event::Host(host, answered));
    }
}
