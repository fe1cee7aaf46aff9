//! The gateway: the real framing, and a dispatch board that follows rows and output logs.

use std::rc::Rc;
use std::time::Duration;

use nixfleet_bus::MessageIds;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{Dispatch, HeartbeatRequest, OwnerHeartbeat};
use nixfleet_proto::{ChannelName, Entry, EntryBody, OperatorCommand, Producer};

use super::board::Board;
use super::log_room::LogRooms;
use super::publisher::Publisher;
use super::reader::{ReadFault, Reader};
use crate::model::{DispatchRow, Log, Op, Reply};
use crate::world::env::Env;
use crate::world::event::{Alive, Answer, Request, RequestBody, Requester, Route};

/// Longest wait of a long-poll.
const POLL_MAX: Duration = Duration::from_secs(60);
/// Pause before a source that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A gateway process.
#[derive(Debug)]
pub struct Ingest {
    me: Alive,
    /// Requests with the number of their events.
    publisher: Publisher<(Requester, usize)>,
    board: Board,
    follows: std::collections::BTreeMap<Partition, Follow>,
    polls: Vec<Poll>,
    heartbeats: std::collections::BTreeMap<u64, Requester>,
    rooms: LogRooms,
}

/// How the board learns of a partition.
#[derive(Debug)]
enum Follow {
    /// Waits for a timer before it starts over.
    Resting(u64),
    /// Reads the rows.
    Loading(u64),
    /// There are none: asks whether they are being restored.
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
    pub fn start(me: Alive, env: &mut Env) -> Self {
        let name = env.processes[me.id].name();
        let ids = Rc::new(MessageIds::new(&name, &me.life.to_string()));
        let partitions = env.shape.partitions;
        let mut ingest = Self {
            me,
            publisher: Publisher::new(partitions, ids),
            board: Board::default(),
            follows: std::collections::BTreeMap::new(),
            polls: Vec::new(),
            heartbeats: std::collections::BTreeMap::new(),
            rooms: LogRooms::default(),
        };
        for partition in Partition::all(partitions) {
            ingest.load(partition, env);
        }
        ingest
    }

    /// Takes no more requests; true when everything accepted is answered.
    pub fn stop(&mut self, env: &mut Env) -> bool {
        for poll in std::mem::take(&mut self.polls) {
            env.answer(poll.from, Answer::Dispatch(None));
        }
        self.publisher.is_idle()
    }

    /// Takes a request.
    pub fn request(&mut self, request: Request, env: &mut Env) {
        let from = request.from;
        match request.body {
            RequestBody::Events(events) => {
                let Some(first) = events.first() else {
                    return;
                };
                let channel = first.rollout_id.channel();
                let partition = Partition::of(&channel, env.shape.partitions);
                if !self.rooms.has_room(partition, self.me, env) {
                    env.checks.counts.held_back += 1;
                    return env.answer(from, Answer::Unavailable);
                }
                let bodies = events.into_iter().map(|event| EntryBody::HostEvent {
                    rollout_id: event.rollout_id,
                    hostname: event.hostname,
                    producer: Producer::Agent,
                    event: event.event.into(),
                });
                self.append(&channel, bodies.collect(), from, env);
            }
            RequestBody::Command(command) => {
                let channel = match &command {
                    OperatorCommand::OperatorClearance { rollout_id, .. } => rollout_id.channel(),
                    OperatorCommand::ClearQuarantine { channel, .. } => channel.clone(),
                };
                self.append(&channel, vec![EntryBody::Operator { command }], from, env);
            }
            RequestBody::Heartbeat(heartbeat) => self.heartbeat(heartbeat, from, env),
            RequestBody::Poll => self.poll(from, env),
            RequestBody::Artifacts(rollout_id) => {
                let found = env.releases.iter().find_map(|r| r.signed.get(&rollout_id));
                let answer = match found {
                    Some(release) => Answer::Artifacts(Box::new(release.clone())),
                    None => Answer::NotFound,
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
        env: &mut Env,
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

    fn heartbeat(&mut self, request: HeartbeatRequest, from: Requester, env: &mut Env) {
        let Some(release) = env.releases.last() else {
            env.answer(from, Answer::Unavailable);
            return;
        };
        let Some(host) = release.plan.fleet().hosts.get(&request.hostname) else {
            env.answer(from, Answer::NotFound);
            return;
        };
        let heartbeat = OwnerHeartbeat {
            channel: host.channel.clone(),
            received_at: env.wall(self.me),
            request,
        };
        let partition = Partition::of(&heartbeat.channel, env.shape.partitions);
        let op = Op::AskOwner(partition, Box::new(heartbeat));
        let call = env.call(self.me, Route::Whole, op);
        self.heartbeats.insert(call, from);
    }

    fn poll(&mut self, from: Requester, env: &mut Env) {
        let timer = env.timer(self.me, Route::Whole, POLL_MAX);
        self.polls.push(Poll { from, timer });
        self.serve_polls(env);
    }

    /// Takes an answer of a server, or that none came, or a timer.
    pub fn take(&mut self, route: Route, (call, reply): (u64, Option<Reply>), env: &mut Env) {
        match route {
            Route::Lane(partition) => {
                let answers = self.publisher.take(partition, (call, reply), self.me, env);
                for ((requester, count), result) in answers {
                    let answer = match result {
                        Ok(_) => Answer::Stored(count),
                        Err(_) => Answer::Unavailable,
                    };
                    env.answer(requester, answer);
                }
            }
            Route::Work(partition) => self.loaded(partition, (call, reply), env),
            Route::Reader(partition) => self.read(partition, (call, reply), env),
            Route::Whole => self.heartbeat_or_poll(call, reply, env),
            Route::Aside(partition) => self.rooms.take(partition, (call, reply), env),
            Route::Lease => {}
        }
    }

    fn heartbeat_or_poll(&mut self, call: u64, reply: Option<Reply>, env: &mut Env) {
        if let Some(from) = self.heartbeats.remove(&call) {
            let answer = match reply {
                Some(Reply::Owner(reply)) => Answer::Heartbeat(reply),
                _ => Answer::Unavailable,
            };
            env.answer(from, answer);
            return;
        }
        if let Some(index) = self.polls.iter().position(|poll| poll.timer == call) {
            let poll = self.polls.remove(index);
            let is_loaded = self
                .follows
                .values()
                .all(|f| matches!(f, Follow::Reading(_)));
            let answer = if is_loaded {
                Answer::Dispatch(None)
            } else {
                Answer::Unavailable
            };
            env.answer(poll.from, answer);
        }
    }

    fn load(&mut self, partition: Partition, env: &mut Env) {
        let call = env.call(self.me, Route::Work(partition), Op::Dispatches);
        self.follows.insert(partition, Follow::Loading(call));
    }

    fn rest(&mut self, partition: Partition, env: &mut Env) {
        let timer = env.timer(self.me, Route::Work(partition), RETRY);
        self.follows.insert(partition, Follow::Resting(timer));
    }

    fn loaded(&mut self, partition: Partition, (call, reply): (u64, Option<Reply>), env: &mut Env) {
        match self.follows.get_mut(&partition) {
            Some(Follow::Resting(timer)) if *timer == call => self.load(partition, env),
            Some(Follow::Loading(asked)) if *asked == call => {
                let Some(Reply::Dispatches(rows, cursors)) = reply else {
                    return self.rest(partition, env);
                };
                let cursor = cursors.iter().find(|(number, _)| *number == partition);
                let out_seq = cursor.map_or(0, |(_, cursor)| cursor.out_seq);
                if let Some(mark) = cursor.and_then(|(_, cursor)| cursor.input) {
                    self.rooms.folded(partition, mark.seq);
                }
                if out_seq == 0 {
                    let op = Op::Announced(partition);
                    let call = env.call(self.me, Route::Work(partition), op);
                    self.follows.insert(partition, Follow::Checking(call, rows));
                    return;
                }
                self.follow(partition, rows, out_seq + 1, env);
            }
            Some(Follow::Checking(asked, rows)) if *asked == call => match reply {
                Some(Reply::Announced(first, announced)) if first <= 1 || announced.is_empty() => {
                    let rows = std::mem::take(rows);
                    self.follow(partition, rows, 1, env);
                }
                _ => self.rest(partition, env),
            },
            Some(Follow::Resting(_) | Follow::Loading(_)) | None => {}
            Some(Follow::Checking(..) | Follow::Reading(_)) => {}
        }
    }

    fn follow(&mut self, partition: Partition, rows: Vec<DispatchRow>, from: u64, env: &mut Env) {
        let partitions = env.shape.partitions;
        let rows = rows
            .into_iter()
            .filter(|row| Partition::of(&row.rollout_id.channel(), partitions) == partition);
        self.board.load(partition, rows.collect());
        let mut reader = Reader::new(Log::Output(partition), Route::Reader(partition), from);
        reader.ask(self.me, env);
        self.follows.insert(partition, Follow::Reading(reader));
        self.serve_polls(env);
    }

    fn read(&mut self, partition: Partition, (call, reply): (u64, Option<Reply>), env: &mut Env) {
        let Some(Follow::Reading(reader)) = self.follows.get_mut(&partition) else {
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
                            self.board.follow(partition, outcome);
                        }
                        if let Some(mark) = frame.last_input {
                            self.rooms.folded(partition, mark.seq);
                        }
                    }
                }
                if is_news {
                    self.serve_polls(env);
                }
            }
            // Nothing was ever applied, so the log's own beginning is as far back as anyone knows.
            Err(ReadFault::Trimmed(first)) if from_start => {
                let log = Log::Output(partition);
                let mut reader = Reader::new(log, Route::Reader(partition), first);
                reader.ask(self.me, env);
                self.follows.insert(partition, Follow::Reading(reader));
            }
            Err(_) => self.rest(partition, env),
        }
    }

    /// Answers every long-poll whose host has something to fetch.
    fn serve_polls(&mut self, env: &mut Env) {
        let mut waiting = Vec::new();
        for poll in std::mem::take(&mut self.polls) {
            let Requester::Agent(host, ..) = poll.from else {
                continue;
            };
            let hostname = env.hostname(host);
            match self.board.fetch(&hostname, env.now) {
                Some(row) => {
                    let dispatch = Dispatch {
                        soak_due_at: env.wall(self.me) + row.soak_minutes.delta(),
                        hostname: row.hostname,
                        rollout_id: row.rollout_id,
                        target_closure: row.target_closure,
                        soak_minutes: row.soak_minutes,
                        enqueued_at: row.enqueued_at,
                    };
                    env.answer(poll.from, Answer::Dispatch(Some(Box::new(dispatch))));
                }
                None => waiting.push(poll),
            }
        }
        self.polls = waiting;
    }
}
