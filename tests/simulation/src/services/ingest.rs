//! The gateway: the real framing of input messages, and a dispatch queue that follows rows and output logs.

use std::rc::Rc;
use std::time::Duration;

use nixfleet_bus::MessageIds;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{Dispatch, HeartbeatRequest, OwnerHeartbeat};
use nixfleet_proto::{ChannelName, Entry, EntryBody, OperatorCommand, Producer};

use super::dispatch_queue::DispatchQueue;
use super::input_publisher::InputPublisher;
use super::log_space::LogSpace;
use super::reader::{ReadFault, Reader};
use crate::addressing::{Incarnation, Route};
use crate::gateway_messages::{GatewayRequest, GatewayRequestBody, GatewayResponse, Requester};
use crate::simulated_console;
use crate::simulated_servers::{CallResult, DispatchRow, LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// Longest wait of a long-poll.
const POLL_MAX: Duration = Duration::from_secs(60);
/// Pause before rows or an output log are read again after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// A gateway process.
#[derive(Debug)]
pub struct Ingest {
    me: Incarnation,
    /// The ticket of an append: its requester, and how many events it has.
    publisher: InputPublisher<(Requester, usize)>,
    dispatch_queue: DispatchQueue,
    followers: std::collections::BTreeMap<Partition, PartitionFollower>,
    polls: Vec<Poll>,
    heartbeats: std::collections::BTreeMap<u64, Requester>,
    log_space: LogSpace,
}

/// How the dispatch queue follows a partition.
#[derive(Debug)]
enum PartitionFollower {
    /// Waits for a timer before it starts over.
    Resting(u64),
    /// Reads the rows.
    Loading(u64),
    /// There are no rows: checks whether they are being restored.
    Checking(u64, Vec<DispatchRow>),
    /// Follows the output log.
    Reading(Reader),
}

/// A long-poll that waits.
#[derive(Debug)]
struct Poll {
    from: Requester,
    timer: u64,
}

impl Ingest {
    /// A gateway that just started.
    pub fn start(me: Incarnation, env: &mut Environment) -> Self {
        let name = env.processes[me.id].name();
        let ids = Rc::new(MessageIds::new(&name, &me.life.to_string()));
        let partitions = env.shape.partitions;
        let mut ingest = Self {
            me,
            publisher: InputPublisher::new(partitions, ids),
            dispatch_queue: DispatchQueue::default(),
            followers: std::collections::BTreeMap::new(),
            polls: Vec::new(),
            heartbeats: std::collections::BTreeMap::new(),
            log_space: LogSpace::default(),
        };
        for partition in Partition::all(partitions) {
            ingest.load(partition, env);
        }
        ingest
    }

    /// Ends the long-polls; true when every accepted request is answered.
    pub fn stop(&mut self, env: &mut Environment) -> bool {
        for poll in std::mem::take(&mut self.polls) {
            env.answer(poll.from, GatewayResponse::Dispatch(None));
        }
        self.publisher.is_idle()
    }

    /// Processes a request.
    pub fn request(&mut self, request: GatewayRequest, env: &mut Environment) {
        let from = request.from;
        match request.body {
            GatewayRequestBody::Events(events) => {
                let Some(first) = events.first() else {
                    return;
                };
                let channel = first.rollout_id.channel();
                let partition = Partition::of(&channel, env.shape.partitions);
                if !self.log_space.has_room(partition, self.me, env) {
                    env.invariants.counts.held_back += 1;
                    return env.answer(from, GatewayResponse::Unavailable);
                }
                let bodies = events.into_iter().map(|event| EntryBody::HostEvent {
                    rollout_id: event.rollout_id,
                    hostname: event.hostname,
                    producer: Producer::Agent,
                    event: event.event.into(),
                });
                self.append(&channel, bodies.collect(), from, env);
            }
            GatewayRequestBody::Command(command) => {
                let channel = match &command {
                    OperatorCommand::OperatorClearance { rollout_id, .. } => rollout_id.channel(),
                    OperatorCommand::ClearQuarantine { channel, .. } => channel.clone(),
                };
                let origin = simulated_console::origin();
                self.append(
                    &channel,
                    vec![EntryBody::Operator { command, origin }],
                    from,
                    env,
                );
            }
            GatewayRequestBody::Heartbeat(heartbeat) => self.heartbeat(heartbeat, from, env),
            GatewayRequestBody::Poll => self.poll(from, env),
            GatewayRequestBody::Artifacts(rollout_id) => {
                let found = env.releases.iter().find_map(|r| r.signed.get(&rollout_id));
                let answer = match found {
                    Some(release) => GatewayResponse::Artifacts(Box::new(release.clone())),
                    None => GatewayResponse::NotFound,
                };
                env.answer(from, answer);
            }
        }
    }

    /// Everything goes in one message, so that nothing is stored ahead of what comes before it.
    fn append(
        &mut self,
        channel: &ChannelName,
        bodies: Vec<EntryBody>,
        from: Requester,
        env: &mut Environment,
    ) {
        let partition = Partition::of(channel, env.shape.partitions);
        let wall = env.wall(self.me);
        let entries: Vec<_> = bodies
            .into_iter()
            .map(|body| Entry::new(wall, body))
            .collect();
        let waiter = (from, entries.len());
        self.publisher
            .push(partition, (&entries, waiter), self.me, env);
    }

    fn heartbeat(&mut self, request: HeartbeatRequest, from: Requester, env: &mut Environment) {
        if !env.is_clock_right(self.me) {
            env.answer(from, GatewayResponse::Unavailable);
            return;
        }
        let Some(release) = env.releases.last() else {
            env.answer(from, GatewayResponse::Unavailable);
            return;
        };
        let Some(host) = release.plan.fleet().hosts.get(&request.hostname) else {
            env.answer(from, GatewayResponse::NotFound);
            return;
        };
        let heartbeat = OwnerHeartbeat {
            channel: host.channel.clone(),
            received_at: env.wall(self.me),
            request,
        };
        let partition = Partition::of(&heartbeat.channel, env.shape.partitions);
        let request = ServerRequest::AskOwner(partition, Box::new(heartbeat));
        let call = env.call(self.me, Route::Process, request);
        self.heartbeats.insert(call, from);
    }

    fn poll(&mut self, from: Requester, env: &mut Environment) {
        let timer = env.start_timer(self.me, Route::Process, POLL_MAX);
        self.polls.push(Poll { from, timer });
        self.serve_polls(env);
    }

    /// Processes a reply, a timeout or a timer.
    pub fn take(
        &mut self,
        route: Route,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        match route {
            Route::InputPublisher(partition) => {
                let answers =
                    self.publisher
                        .take(partition, CallResult { call, reply }, self.me, env);
                for ((requester, count), result) in answers {
                    let answer = match result {
                        Ok(_) => GatewayResponse::Stored(count),
                        Err(_) => GatewayResponse::Unavailable,
                    };
                    env.answer(requester, answer);
                }
            }
            Route::Work(partition) => self.loaded(partition, CallResult { call, reply }, env),
            Route::Reader(partition) => self.read(partition, CallResult { call, reply }, env),
            Route::Process => self.heartbeat_or_poll(call, reply, env),
            Route::LogSpace(partition) => {
                self.log_space
                    .take(partition, CallResult { call, reply }, env)
            }
            Route::Lease => {}
        }
    }

    fn heartbeat_or_poll(&mut self, call: u64, reply: Option<ServerReply>, env: &mut Environment) {
        if let Some(from) = self.heartbeats.remove(&call) {
            let answer = match reply {
                Some(ServerReply::OwnerReply(reply)) => GatewayResponse::Heartbeat(reply),
                _ => GatewayResponse::Unavailable,
            };
            env.answer(from, answer);
            return;
        }
        if let Some(index) = self.polls.iter().position(|poll| poll.timer == call) {
            let poll = self.polls.remove(index);
            let is_loaded = self
                .followers
                .values()
                .all(|f| matches!(f, PartitionFollower::Reading(_)));
            let answer = if is_loaded {
                GatewayResponse::Dispatch(None)
            } else {
                GatewayResponse::Unavailable
            };
            env.answer(poll.from, answer);
        }
    }

    fn load(&mut self, partition: Partition, env: &mut Environment) {
        let call = env.call(self.me, Route::Work(partition), ServerRequest::Dispatches);
        self.followers
            .insert(partition, PartitionFollower::Loading(call));
    }

    fn rest(&mut self, partition: Partition, env: &mut Environment) {
        let timer = env.start_timer(self.me, Route::Work(partition), RETRY);
        self.followers
            .insert(partition, PartitionFollower::Resting(timer));
    }

    fn loaded(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        match self.followers.get_mut(&partition) {
            Some(PartitionFollower::Resting(timer)) if *timer == call => self.load(partition, env),
            Some(PartitionFollower::Loading(asked)) if *asked == call => {
                let Some(ServerReply::Dispatches(rows, cursors)) = reply else {
                    return self.rest(partition, env);
                };
                let cursor = cursors.iter().find(|(number, _)| *number == partition);
                let out_seq = cursor.map_or(0, |(_, cursor)| cursor.out_seq);
                if let Some(mark) = cursor.and_then(|(_, cursor)| cursor.input) {
                    self.log_space.folded(partition, mark.seq);
                }
                if out_seq == 0 {
                    let request = ServerRequest::AnnouncedCheckpoints(partition);
                    let call = env.call(self.me, Route::Work(partition), request);
                    self.followers
                        .insert(partition, PartitionFollower::Checking(call, rows));
                    return;
                }
                self.follow(partition, rows, out_seq + 1, env);
            }
            Some(PartitionFollower::Checking(asked, rows)) if *asked == call => match reply {
                Some(ServerReply::AnnouncedCheckpoints {
                    first_seq: first,
                    checkpoints: announced,
                }) if first <= 1 || announced.is_empty() => {
                    let rows = std::mem::take(rows);
                    self.follow(partition, rows, 1, env);
                }
                _ => self.rest(partition, env),
            },
            Some(PartitionFollower::Resting(_) | PartitionFollower::Loading(_)) | None => {}
            Some(PartitionFollower::Checking(..) | PartitionFollower::Reading(_)) => {}
        }
    }

    fn follow(
        &mut self,
        partition: Partition,
        rows: Vec<DispatchRow>,
        from: u64,
        env: &mut Environment,
    ) {
        let partitions = env.shape.partitions;
        let rows = rows
            .into_iter()
            .filter(|row| Partition::of(&row.rollout_id.channel(), partitions) == partition);
        self.dispatch_queue.load(partition, rows.collect());
        let mut reader = Reader::new(LogId::Output(partition), Route::Reader(partition), from);
        reader.ask(self.me, env);
        self.followers
            .insert(partition, PartitionFollower::Reading(reader));
        self.serve_polls(env);
    }

    fn read(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let Some(PartitionFollower::Reading(reader)) = self.followers.get_mut(&partition) else {
            return;
        };
        let from_start = reader.next_seq() == 1;
        match reader.take(call, reply) {
            Ok(messages) => {
                reader.ask(self.me, env);
                let is_news = !messages.is_empty();
                for message in messages {
                    if let Some(frame) = message.output() {
                        for outcome in &frame.outcomes {
                            self.dispatch_queue.follow(partition, outcome);
                        }
                        if let Some(mark) = frame.last_input {
                            self.log_space.folded(partition, mark.seq);
                        }
                    }
                }
                if is_news {
                    self.serve_polls(env);
                }
            }
            // No rows exist, so the queue starts at the first message of the log.
            Err(ReadFault::Trimmed(first)) if from_start => {
                let log = LogId::Output(partition);
                let mut reader = Reader::new(log, Route::Reader(partition), first);
                reader.ask(self.me, env);
                self.followers
                    .insert(partition, PartitionFollower::Reading(reader));
            }
            Err(_) => self.rest(partition, env),
        }
    }

    /// Answers every long-poll whose host has something to fetch.
    fn serve_polls(&mut self, env: &mut Environment) {
        let mut waiting = Vec::new();
        for poll in std::mem::take(&mut self.polls) {
            let Requester::Agent(request) = poll.from else {
                continue;
            };
            let hostname = env.hostname(request.host);
            match self.dispatch_queue.fetch(&hostname, env.now) {
                Some(row) => {
                    let dispatch = Dispatch {
                        soak_due_at: env.wall(self.me) + row.soak_minutes.delta(),
                        hostname: row.hostname,
                        rollout_id: row.rollout_id,
                        target_closure: row.target_closure,
                        soak_minutes: row.soak_minutes,
                        enqueued_at: row.enqueued_at,
                    };
                    env.answer(
                        poll.from,
                        GatewayResponse::Dispatch(Some(Box::new(dispatch))),
                    );
                }
                None => waiting.push(poll),
            }
        }
        self.polls = waiting;
    }
}
