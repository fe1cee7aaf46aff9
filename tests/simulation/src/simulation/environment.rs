//! What an actor sees of the simulation: virtual time, network, servers, trace and invariants.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use chrono::TimeDelta;
use nixfleet_bus::ClockOffset;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ClosureHash, Hostname, PinnedSet, Timestamp};

use super::event::{SimulatedHostEvent, SimulationEvent};
use super::process_status::ProcessStatus;
use crate::addressing::{Caller, HostId, Incarnation, ProcessId, Route, Service};
use crate::engine::{Queue, Rng, Time, Trace};
use crate::gateway_messages::{GatewayRequest, GatewayRequestBody, GatewayResponse, Requester};
use crate::invariant_monitor::InvariantMonitor;
use crate::scenario::{CrashPoint, FaultRates, RowLoss, Shape};
use crate::signed_release::Release;
use crate::simulated_servers::{Broker, Connection, Database, LogId, ServerReply, ServerRequest};

/// How long a process waits for the reply of a server.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a fetch, which waits for new messages.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The state that all actors share.
#[derive(Debug)]
pub struct Environment {
    /// The current virtual time.
    pub now: Time,
    /// The seed.
    pub seed: u64,
    /// Random source for delays and losses.
    pub network_rng: Rng,
    /// Rates of the faults outside the schedule.
    pub fault_rates: FaultRates,
    /// The fleet.
    pub shape: Rc<Shape>,
    /// Published releases, oldest first.
    pub releases: Vec<Rc<Release>>,
    /// The broker.
    pub broker: Broker,
    /// The database.
    pub database: Database,
    /// The invariants.
    pub invariants: InvariantMonitor,
    /// State of every process.
    pub processes: Vec<ProcessStatus>,
    /// Processes that own a partition and answer its heartbeats.
    pub owners: BTreeMap<Partition, Vec<Incarnation>>,
    /// Pinned manifests, as the object store holds them.
    pub pinned: PinnedSet,
    /// Until when heartbeats are repeated and report arbitrary closures.
    pub heartbeat_storm_until: Time,
    /// An input log that takes no message, and until when.
    pub full_input: Option<(Partition, Time)>,
    /// Until when the broker is down.
    pub broker_down_until: Time,
    /// Until when the database is down.
    pub database_down_until: Time,
    /// A loss of rows that happens at the next trim.
    pub row_loss_at_trim: Option<RowLoss>,
    queue: Queue<SimulationEvent>,
    trace: Trace,
    /// When the last call on a connection arrives: connections keep their order.
    last_arrival: BTreeMap<(ProcessId, Connection), Time>,
    /// The same for replies.
    last_answer: BTreeMap<(ProcessId, Connection), Time>,
}

impl Environment {
    /// True while a log takes no message because of a fault.
    pub fn is_full(&self, log: LogId) -> bool {
        let full = self.full_input.filter(|(_, until)| self.now < *until);
        full.is_some_and(|(partition, _)| log == LogId::Input(partition))
    }

    /// The environment at time zero.
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
            full_input: None,
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

    /// Wall-clock time of a process.
    pub fn wall(&self, process: Incarnation) -> Timestamp {
        self.now.wall(self.processes[process.id].skew_ms)
    }

    /// True while the clock of a process may stamp entries.
    pub fn is_clock_right(&self, process: Incarnation) -> bool {
        let skew = TimeDelta::milliseconds(self.processes[process.id].skew_ms);
        ClockOffset(skew).is_accepted()
    }

    /// Name of a host.
    pub fn hostname(&self, host: HostId) -> Hostname {
        self.shape.hosts[host].hostname()
    }

    /// Adds a line to the trace.
    pub fn trace(&mut self, text: fmt::Arguments<'_>) {
        self.trace.line(self.now, text);
    }

    /// The trace so far.
    pub fn trace_so_far(&self) -> &Trace {
        &self.trace
    }

    /// Schedules an event after a pause.
    pub fn schedule(&mut self, pause: Duration, event: SimulationEvent) {
        self.queue.push(self.now + pause, event);
    }

    /// Schedules an event.
    pub fn schedule_at(&mut self, at: Time, event: SimulationEvent) {
        self.queue.push(at.max(self.now), event);
    }

    /// Takes the next event and sets the time to its time.
    pub fn advance(&mut self) -> Option<SimulationEvent> {
        let (at, event) = self.queue.pop()?;
        self.now = at;
        Some(event)
    }

    /// True in `permille` of 1,000 cases.
    pub fn chance(&mut self, permille: u32) -> bool {
        self.network_rng.chance(permille)
    }

    /// Closures of all releases, for false reports.
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

    /// Calls a server; the reply, or the timeout, is an event.
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
        if !self.dies_before_sending(process, &request) {
            self.send(caller, Rc::new(request));
        }
        call
    }

    /// True when a planned crash ends the process before this call is sent; it may also end it right after.
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
            return false;
        };
        let status = &mut self.processes[process.id];
        let name = status.name();
        let dies_before = before.is_some_and(|before| status.dies_at(before));
        let dies_after = status.dies_at(after);
        if dies_before || dies_after {
            self.trace(format_args!("{name} crashes at a planned point"));
            self.schedule(Duration::ZERO, SimulationEvent::KillProcess(process));
        }
        dies_before
    }

    /// Like [`Self::call`], for calls with any number of replies and without a timeout.
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

    /// Starts a timer for a part of a process.
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

    /// Sends a call without waiting for a reply.
    pub fn send_without_reply(&mut self, process: Incarnation, request: ServerRequest) {
        let call = self.processes[process.id].next_call();
        let caller = Caller {
            process,
            route: Route::Process,
            call,
        };
        self.send(caller, Rc::new(request));
    }

    /// Sends the reply of a server, unless the network loses it.
    pub fn reply(&mut self, caller: Caller, server: Connection, reply: ServerReply) {
        let is_cut = self.processes[caller.process.id].is_cut(server, self.now);
        if is_cut || self.chance(self.fault_rates.lost_reply) {
            return;
        }
        self.deliver(caller, server, reply);
    }

    /// Sends a reply that is never lost; replies on one connection keep their order.
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

    /// Network delay of one message between a process and a server.
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

    /// Network delay of one message between a host and a gateway.
    pub fn gateway_delay(&mut self) -> Duration {
        if self.chance(self.fault_rates.slow) {
            return Duration::from_millis(self.network_rng.range(500, 12_000));
        }
        Duration::from_millis(self.network_rng.range(2, 40))
    }

    /// Sends a request to a random gateway, whether or not it runs.
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

    /// Sends the response of a gateway to the requester.
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
