//! The applier: drives one real turn builder per partition.

mod checkpoint_restore;
mod log_lookup;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use nixfleet_applier::{FrameBatch, SequencedFrame, TurnBuilder, split_batches};
use nixfleet_bus::StreamIdentity;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use super::lease_keys::{all_keys, partition_of};
use super::leases::{LeaseChange, Leases};
use super::reader::{ReadFault, Reader};
use crate::addressing::{Incarnation, Route, Service};
use crate::simulated_servers::stream::StoredMessage;
use crate::simulated_servers::{CallResult, LogId, ServerReply, ServerRequest, Turn};
use crate::simulation::environment::Environment;
use checkpoint_restore::{CheckpointRestore, RestoreProgress};

/// How often an idle partition checks its cursor.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(500);
/// Most outcomes of a turn; small, so that there are many turns.
const OUTCOMES_MAX: usize = 24;

/// An applier process.
#[derive(Debug)]
pub struct Applier {
    me: Incarnation,
    leases: Leases,
    work: BTreeMap<Partition, Work>,
}

/// The work on a partition.
#[derive(Debug)]
enum Work {
    Idle,
    Resting(u64),
    /// Reads all cursors, to create missing streams above them.
    SequenceFloors(u64),
    Layout(u64),
    Cursor(u64),
    Locating(u64, Box<Located>),
    /// The tables are empty or older than the log.
    Restoring(Box<CheckpointRestore>),
    Following(Box<Following>),
}

/// What is known about the logs so far.
#[derive(Debug, Default)]
struct Located {
    cursor: Option<Cursor>,
    msg_id: Option<String>,
    input: Option<StreamIdentity>,
}

#[derive(Debug)]
struct Following {
    builder: TurnBuilder,
    reader: Reader,
    waiting: VecDeque<FrameBatch>,
    step: Option<(u64, Step)>,
    check: u64,
}

/// The pending step of a turn.
#[derive(Debug)]
enum Step {
    /// The message id at the new input position.
    Id(Box<nixfleet_applier::Turn>),
    /// The commit.
    Commit(Box<Cursor>),
    /// The cursor, to check that it is unchanged.
    Check,
}

impl Applier {
    /// An applier that just started.
    pub fn start(me: Incarnation, env: &mut Environment) -> Self {
        let partitions = env.shape.partitions;
        Self {
            me,
            leases: Leases::start(me, Service::Applier, all_keys(partitions), env),
            work: Partition::all(partitions)
                .map(|p| (p, Work::Idle))
                .collect(),
        }
    }

    /// Its leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Stops the process in an orderly way; true when it holds no lease.
    pub fn stop(&mut self, env: &mut Environment) -> bool {
        let (changes, is_ended) = self.leases.stop(env);
        self.change(changes, env);
        is_ended
    }

    /// Processes a reply, a timeout or a timer.
    pub fn take(
        &mut self,
        route: Route,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        match route {
            Route::Lease => {
                let changes = self.leases.take(call, reply, env);
                self.change(changes, env);
            }
            Route::Reader(partition) => self.read(partition, CallResult { call, reply }, env),
            Route::Work(partition) => self.proceed(partition, CallResult { call, reply }, env),
            Route::InputPublisher(_) | Route::LogSpace(_) | Route::Process => {}
        }
    }

    fn change(&mut self, changes: Vec<LeaseChange>, env: &mut Environment) {
        for change in changes {
            match change {
                LeaseChange::Acquired(key) => self.begin(partition_of(&key), env),
                // A turn in flight goes on: the cursor shows it to the next holder.
                LeaseChange::Lost(key) | LeaseChange::ReleaseRequested(key) => {
                    self.work.insert(partition_of(&key), Work::Idle);
                    let mut changes = self.leases.release(&key, env);
                    changes.extend(self.leases.want(&key, env));
                    self.change(changes, env);
                }
            }
        }
    }

    fn ask(&self, partition: Partition, request: ServerRequest, env: &mut Environment) -> u64 {
        env.call(self.me, Route::Work(partition), request)
    }

    fn begin(&mut self, partition: Partition, env: &mut Environment) {
        let call = self.ask(partition, ServerRequest::Cursor(partition), env);
        self.work.insert(partition, Work::Cursor(call));
    }

    fn rest(&mut self, partition: Partition, why: &str, env: &mut Environment) {
        let name = env.processes[self.me.id].name();
        env.trace(format_args!("{name} {partition} starts over: {why}"));
        let timer = env.start_timer(self.me, Route::Work(partition), PAUSE);
        self.work.insert(partition, Work::Resting(timer));
    }

    /// Stops the work until an operator repairs the fault.
    fn stop_with_error(&mut self, partition: Partition, why: &str, env: &mut Environment) {
        env.invariants.stopped_with_error(partition);
        let name = env.processes[self.me.id].name();
        env.trace(format_args!("{name} {partition} stops: {why}"));
        let timer = env.start_timer(self.me, Route::Work(partition), CHECK_EVERY);
        self.work.insert(partition, Work::Resting(timer));
    }

    /// Creates missing streams above the cursors.
    fn recreate_streams(&mut self, partition: Partition, env: &mut Environment) {
        let call = self.ask(partition, ServerRequest::Cursors, env);
        self.work.insert(partition, Work::SequenceFloors(call));
    }

    fn proceed(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let Some(work) = self.work.get_mut(&partition) else {
            return;
        };
        match work {
            Work::Resting(timer) if *timer == call => self.begin(partition, env),
            Work::SequenceFloors(asked) if *asked == call => match reply {
                Some(ServerReply::Cursors(recorded)) => {
                    let call = self.ask(partition, ServerRequest::EnsureLayout(recorded), env);
                    self.work.insert(partition, Work::Layout(call));
                }
                _ => self.rest(partition, "no cursors", env),
            },
            Work::Layout(asked) if *asked == call => self.rest(partition, "layout", env),
            Work::Cursor(asked) if *asked == call => match reply {
                Some(ServerReply::Cursor(cursor)) => self.locate(partition, cursor, env),
                _ => self.rest(partition, "no cursor", env),
            },
            Work::Locating(asked, _) if *asked == call => self.located(partition, reply, env),
            Work::Restoring(_) => self.restore(partition, CallResult { call, reply }, env),
            Work::Following(_) => self.step(partition, CallResult { call, reply }, env),
            Work::Idle
            | Work::Resting(_)
            | Work::SequenceFloors(_)
            | Work::Layout(_)
            | Work::Cursor(_)
            | Work::Locating(..) => {}
        }
    }

    fn restore(&mut self, partition: Partition, answer: CallResult, env: &mut Environment) {
        let Some(Work::Restoring(restoring)) = self.work.get_mut(&partition) else {
            return;
        };
        match restoring.take(answer, self.me, env) {
            RestoreProgress::Waits => {}
            // Another applier may have written rows.
            RestoreProgress::Written => self.begin(partition, env),
            RestoreProgress::NothingAnnounced => {
                let (cursor, logs) = restoring.located();
                self.start_at_cursor(partition, (cursor, &logs), env);
            }
            RestoreProgress::NoReply => self.rest(partition, "no answer", env),
            RestoreProgress::Refused(why) => self.stop_with_error(partition, &why, env),
        }
    }

    fn follow(&mut self, partition: Partition, builder: TurnBuilder, env: &mut Environment) {
        let log = LogId::Output(partition);
        let mut reader = Reader::new(log, Route::Reader(partition), builder.next());
        reader.ask(self.me, env);
        let following = Following {
            builder,
            reader,
            waiting: VecDeque::new(),
            step: None,
            check: env.start_timer(self.me, Route::Work(partition), CHECK_EVERY),
        };
        self.work
            .insert(partition, Work::Following(Box::new(following)));
    }

    fn read(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let Some(Work::Following(following)) = self.work.get_mut(&partition) else {
            return;
        };
        match following.reader.take(call, reply) {
            Ok(messages) => {
                following.reader.ask(self.me, env);
                let Some(frames) = frames(&messages) else {
                    return self.stop_with_error(partition, "a frame cannot be read", env);
                };
                following
                    .waiting
                    .extend(split_batches(frames, OUTCOMES_MAX));
                self.next_turn(partition, env);
            }
            Err(ReadFault::Missing) => self.recreate_streams(partition, env),
            Err(ReadFault::Gap) => self.stop_with_error(partition, "the log has a hole", env),
            Err(fault) => self.rest(partition, &format!("{fault:?}"), env),
        }
    }

    fn next_turn(&mut self, partition: Partition, env: &mut Environment) {
        let (me, route) = (self.me, Route::Work(partition));
        let Some(Work::Following(following)) = self.work.get_mut(&partition) else {
            return;
        };
        if following.step.is_some() {
            return;
        }
        let Some(batch) = following.waiting.pop_front() else {
            return;
        };
        let turn = match following.builder.turn(&batch, &env.pinned) {
            Ok(turn) => turn,
            Err(error) => return self.stop_with_error(partition, &error.to_string(), env),
        };
        following.step = Some(match (turn.cursor.input, &turn.cursor.input_msg_id) {
            (Some(mark), None) => {
                let call = env.call(
                    me,
                    route,
                    ServerRequest::MessageIdAt(LogId::Input(partition), mark.seq),
                );
                (call, Step::Id(Box::new(turn)))
            }
            _ => commit(partition, turn, (me, route), env),
        });
    }

    fn step(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        env: &mut Environment,
    ) {
        let (me, route) = (self.me, Route::Work(partition));
        let Some(Work::Following(following)) = self.work.get_mut(&partition) else {
            return;
        };
        if following.check == call {
            following.check = env.start_timer(me, route, CHECK_EVERY);
            if following.step.is_none() {
                let call = env.call(me, route, ServerRequest::Cursor(partition));
                following.step = Some((call, Step::Check));
            }
            return;
        }
        let Some((_, step)) = following.step.take_if(|(asked, _)| *asked == call) else {
            return;
        };
        match (step, reply) {
            (Step::Id(mut turn), Some(ServerReply::MessageId(msg_id))) => {
                turn.cursor.input_msg_id = msg_id;
                following.step = Some(commit(partition, *turn, (me, route), env));
            }
            (Step::Commit(cursor), Some(ServerReply::Applied(true))) => {
                following.builder.written(*cursor);
                self.next_turn(partition, env);
            }
            // Another process wrote rows: read the cursor again.
            (Step::Commit(_), Some(ServerReply::Applied(false))) => self.begin(partition, env),
            (Step::Check, Some(ServerReply::Cursor(cursor))) => {
                if cursor.as_ref() == following.builder.cursor() {
                    self.next_turn(partition, env);
                } else {
                    self.begin(partition, env);
                }
            }
            (Step::Id(_) | Step::Commit(_) | Step::Check, _) => {
                self.rest(partition, "no answer", env);
            }
        }
    }
}

fn commit(
    partition: Partition,
    turn: nixfleet_applier::Turn,
    (me, route): (Incarnation, Route),
    env: &mut Environment,
) -> (u64, Step) {
    let cursor = turn.cursor.clone();
    let request = ServerRequest::Apply(Box::new(Turn {
        partition,
        previous: turn.expected,
        rows: turn.rows,
        cursor: turn.cursor,
    }));
    (env.call(me, route, request), Step::Commit(Box::new(cursor)))
}

fn frames(messages: &[Rc<StoredMessage>]) -> Option<Vec<SequencedFrame>> {
    let frame = |message: &Rc<StoredMessage>| {
        Some(SequencedFrame {
            seq: message.seq,
            traceparent: None,
            frame: message.output()?.as_ref().clone(),
        })
    };
    messages.iter().map(frame).collect()
}
