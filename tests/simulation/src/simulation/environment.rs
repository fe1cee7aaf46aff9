//! Everything around one actor while it acts: time, network, servers, what is checked.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ClosureHash, Hostname, PinnedSet, Timestamp};

use super::event::{SimulatedHostEvent, SimulationEvent};
use super::process_status::ProcessStatus;
use crate::addressing::{Caller, HostId, Incarnation, ProcessId, Route, Service};
use crate::engine::{Queue, Rng, Time, Trace};
use crate::gateway_messages::{GatewayRequest, GatewayRequestBody, GatewayResponse, Requester};
use crate::invariant_monitor::InvariantMonitor;
use crate::model::{Broker, Connection, Database, ServerReply, ServerRequest};
use crate::scenario::{CrashPoint, FaultRates, RowLoss, Shape};
use crate::signed_release::Release;

/// How long a process waits for a server.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a fetch, which waits for news.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The surroundings.
#[derive(Debug)]
pub struct Environment {
    /// The present.
    pub now: Time,
    /// The seed.
    pub seed: u64,
    /// Delays and losses.
    pub network_rng: Rng,
    /// What goes wrong by itself.
    pub fault_rates: FaultRates,
    /// The fleet.
    pub shape: Rc<Shape>,
    /// Published releases, oldest first.
    pub releases: Vec<Rc<Release>>,
    /// The broker.
    pub broker: Broker,
    /// The database.
    pub database: Database,
    /// What must hold.
    pub invariants: InvariantMonitor,
    /// How the processes are.
    pub processes: Vec<ProcessStatus>,
    /// Who answers heartbeats of a partition.
    pub owners: BTreeMap<Partition, Vec<Incarnation>>,
    /// What manifests pin: the object store.
    pub pinned: PinnedSet,
    /// Until when heartbeats come several times and name any closure.
    pub heartbeat_storm_until: Time,
    /// Until when the broker is down.
    pub broker_down_until: Time,
    /// Until when the database is down.
    pub database_down_until: Time,
    /// Rows that are lost as soon as a log was trimmed.
    pub row_loss_at_trim: Option<RowLoss>,
    queue: Queue<SimulationEvent>,
    trace: Trace,
    /// When the last message on a connection arrives: connections keep their order.
    last_arrival: BTreeMap<(ProcessId, Connection), Time>,
    /// The same for answers.
    last_answer: BTreeMap<(ProcessId, Connection), Time>,
}

impl Environment {
    /// A world in which nothing happened.
    pub fn new(seed: u64, shape: Rc<Shape>, fault_rates: FaultRates, trace: Trace) -> Self {
        Self {
            now: Time::ZERO,
            seed,
            network_rng: Rng::new(seed, "net"),
            fault_rates,
            releases: Vec::new(),
            broker: Broker::new(shape.partitions, fault_rates.retry_order, shape.log_limits),
            database: Database::new(),
            invariants: InvariantMonitor::new(&shape),
            processes: Vec::new(),
            owners: BTreeMap::new(),
            pinned: BTreeMap::new(),
            heartbeat_storm_until: Time::ZERO,
            broker_down_until: Time::ZERO,
            database_down_until: Time::ZERO,
            row_loss_at_trim: None,
            queue: Queue::default(),
            trace,
            last_arrival: BTreeMap::new(),
            last_answer: BTreeMap::new(),
            shape,
        }
    }

    /// What the wall clock of a process shows.
    pub fn wall(&self, process: Incarnation) -> Timestamp {
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
    pub fn schedule(&mut self, pause: Duration, event: SimulationEvent) {
        self.queue.push(self.now + pause, event);
    }

    /// Plans an event.
    pub fn schedule_at(&mut self, at: Time, event: SimulationEvent) {
        self.queue.push(at.max(self.now), event);
    }

    /// Moves on to the next event.
    pub fn advance(&mut self) -> Option<SimulationEvent> {
        let (at, event) = self.queue.pop()?;
        self.now = at;
        Some(event)
    }

    /// True in `permille` of 1,000 cases.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.network_rng.chance(permille)
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
    pub fn call(&mut self, process: Incarnation, route: Route, request: ServerRequest) -> u64 {
        let timeout = if matches!(request, ServerRequest::Fetch { .. }) {
            FETCH_TIMEOUT
        } else {
            TIMEOUT
        };
        let call = self.start_timer(process, route, timeout);
        let caller = Caller {
            process,
            route,
            call,
        };
        if self.dies_before_sending(process, &request) {
            self.send(caller, Rc::new(request));
        }
        call
    }

    /// False when the process dies before this call leaves; it may also die right after it.
    fn dies_before_sending(&mut self, process: Incarnation, request: &ServerRequest) -> bool {
        let (before, after) = if matches!(request, ServerRequest::Publish(..)) {
            (Some(CrashPoint::BeforePublish), CrashPoint::AfterPublish)
        } else if matches!(
            request,
            ServerRequest::Apply(_) | ServerRequest::Restore(_) | ServerRequest::Archive(..)
        ) {
            (Some(CrashPoint::BeforeCommit), CrashPoint::AfterCommit)
        } else if matches!(request, ServerRequest::Trim(..)) {
            (Some(CrashPoint::BeforeTrim), CrashPoint::AfterTrim)
        } else if matches!(request, ServerRequest::PutCheckpoint(..)) {
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
            self.schedule(Duration::ZERO, SimulationEvent::KillProcess(process));
        }
        !dies_before
    }

    /// As [`Self::call`], with as many answers as come.
    pub fn call_streaming(
        &mut self,
        process: Incarnation,
        route: Route,
        request: ServerRequest,
    ) -> u64 {
        let call = self.processes[process.id].next_call();
        let caller = Caller {
            process,
            route,
            call,
        };
        self.send(caller, Rc::new(request));
        call
    }

    /// Lets a part of a process know after a pause.
    pub fn start_timer(&mut self, process: Incarnation, route: Route, pause: Duration) -> u64 {
        let call = self.processes[process.id].next_call();
        let caller = Caller {
            process,
            route,
            call,
        };
        self.schedule(pause, SimulationEvent::TimerExpires(caller));
        call
    }

    /// Sends something nobody waits for.
    pub fn send_without_reply(&mut self, process: Incarnation, request: ServerRequest) {
        let call = self.processes[process.id].next_call();
        let caller = Caller {
            process,
            route: Route::Process,
            call,
        };
        self.send(caller, Rc::new(request));
    }

    /// Lets the answer of a server travel back.
    pub fn reply(&mut self, caller: Caller, server: Connection, reply: ServerReply) {
        let is_cut = self.processes[caller.process.id].is_cut(server, self.now);
        if is_cut || self.chance(self.fault_rates.lost_reply) {
            return;
        }
        self.deliver(caller, server, reply);
    }

    /// The same without losing it: answers on one connection keep their order.
    pub fn deliver(&mut self, caller: Caller, server: Connection, reply: ServerReply) {
        let key = (caller.process.id, server);
        let delay = self.delay_of(caller.process.id, server);
        let before = self.last_answer.get(&key).copied().unwrap_or_default();
        let at = (self.now + delay).max(before);
        self.last_answer.insert(key, at);
        self.schedule_at(at, SimulationEvent::ReplyArrives(caller, reply));
    }

    fn send(&mut self, caller: Caller, request: Rc<ServerRequest>) {
        let id = caller.process.id;
        let server = request.server();
        if self.processes[id].is_cut(server, self.now) || self.chance(self.fault_rates.lost_call) {
            return;
        }
        let key = (id, server);
        let delay = self.delay_of(id, server);
        let before = self.last_arrival.get(&key).copied().unwrap_or_default();
        let at = (self.now + delay).max(before);
        self.last_arrival.insert(key, at);
        if matches!(*request, ServerRequest::Publish(..)) && self.chance(self.fault_rates.twice) {
            let again = self.delay(server);
            self.schedule_at(
                at + again,
                SimulationEvent::CallArrives(caller, Rc::clone(&request)),
            );
        }
        self.schedule_at(at, SimulationEvent::CallArrives(caller, request));
    }

    fn delay_of(&mut self, process: ProcessId, server: Connection) -> Duration {
        if self.processes[process].lags(server, self.now) {
            return Duration::from_millis(self.network_rng.range(300, 2_400));
        }
        self.delay(server)
    }

    /// Time of one way between a process and a server.
    pub fn delay(&mut self, server: Connection) -> Duration {
        if self.chance(self.fault_rates.slow) {
            return Duration::from_millis(self.network_rng.range(200, 9_000));
        }
        let micros = match server {
            Connection::Publishing | Connection::Reading | Connection::Leasing => {
                self.network_rng.range(150, 1_500)
            }
            Connection::Database => self.network_rng.range(400, 4_000),
        };
        Duration::from_micros(micros)
    }

    /// Time of one way between a host and a gateway.
    pub fn gateway_delay(&mut self) -> Duration {
        if self.chance(self.fault_rates.slow) {
            return Duration::from_millis(self.network_rng.range(500, 12_000));
        }
        Duration::from_millis(self.network_rng.range(2, 40))
    }

    /// Sends a request to some gateway; nobody knows which of them are up.
    pub fn request(&mut self, request: GatewayRequest) {
        let gateways = self.shape.instances_of(Service::Ingest);
        let to = self.network_rng.index(gateways);
        if self.chance(self.fault_rates.lost_request) {
            return;
        }
        if self.now < self.heartbeat_storm_until
            && matches!(request.body, GatewayRequestBody::Heartbeat(_))
        {
            for _ in 0..2 {
                let again = Duration::from_millis(self.network_rng.below(3_000));
                self.schedule(again, SimulationEvent::RequestArrives(to, request.clone()));
            }
        }
        let delay = self.gateway_delay();
        self.schedule(delay, SimulationEvent::RequestArrives(to, request));
    }

    /// Sends the answer of a gateway to whoever asked.
    pub fn answer(&mut self, to: Requester, answer: GatewayResponse) {
        let Requester::Agent(request) = to else {
            return;
        };
        if self.chance(self.fault_rates.lost_request) {
            return;
        }
        let delay = self.gateway_delay();
        let event = SimulatedHostEvent::ResponseArrives(request, answer);
        self.schedule(delay, SimulationEvent::Host(request.host, event));
    }
}
