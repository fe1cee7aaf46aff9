//! Archives one log from its mark on, and starts over after a failure.

use std::time::Duration;

use nixfleet_bus::StreamIdentity;
use nixfleet_proto::Timestamp;

use crate::addressing::{Incarnation, Route};
use crate::services::reader::{ReadFault, Reader};
use crate::simulated_servers::{ArchiveMark, CallResult, LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The same after a fault that an operator has to repair.
const STOPPED_PAUSE: Duration = Duration::from_secs(30);
/// Pause after a transaction.
const REST: Duration = Duration::from_millis(1_500);
/// How often an idle archive checks its mark.
const CHECK_EVERY: Duration = Duration::from_secs(20);

/// The archive of one log.
#[derive(Debug)]
pub struct Archive {
    log: LogId,
    route: Route,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Resting(u64),
    Mark(u64),
    Identity(u64, Option<ArchiveMark>),
    /// The stream is missing: the recorded positions are read to create it above them.
    Remembering(u64),
    Layout(u64),
    Following(Box<Following>),
}

#[derive(Debug)]
struct Following {
    reader: Reader,
    created: Timestamp,
    archived: u64,
    check: u64,
    step: Option<(u64, Step)>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Archives up to this sequence.
    Commit(u64),
    Rest,
    Check,
}

impl Archive {
    /// Starts with reading the mark.
    pub fn start(log: LogId, route: Route, me: Incarnation, env: &mut Environment) -> Self {
        let call = env.call(me, route, ServerRequest::ArchiveMark(log));
        let stage = Stage::Mark(call);
        Self { log, route, stage }
    }

    /// Processes a reply, a timeout or a timer.
    pub fn take(
        &mut self,
        CallResult { call, reply }: CallResult,
        me: Incarnation,
        env: &mut Environment,
    ) {
        match &self.stage {
            Stage::Resting(timer) if *timer == call => {
                *self = Self::start(self.log, self.route, me, env);
            }
            Stage::Mark(asked) if *asked == call => match reply {
                Some(ServerReply::ArchiveMark(mark)) => {
                    let call = env.call(me, self.route, ServerRequest::Identity(self.log));
                    self.stage = Stage::Identity(call, mark);
                }
                _ => self.rest(PAUSE, me, env),
            },
            Stage::Identity(asked, mark) if *asked == call => match reply {
                Some(ServerReply::Identity(identity)) => self.resume(*mark, identity, me, env),
                Some(ServerReply::StreamMissing) => {
                    let call = env.call(me, self.route, ServerRequest::Cursors);
                    self.stage = Stage::Remembering(call);
                }
                _ => self.rest(PAUSE, me, env),
            },
            Stage::Remembering(asked) if *asked == call => match reply {
                Some(ServerReply::Cursors(recorded)) => {
                    let call = env.call(me, self.route, ServerRequest::EnsureLayout(recorded));
                    self.stage = Stage::Layout(call);
                }
                _ => self.rest(PAUSE, me, env),
            },
            Stage::Layout(asked) if *asked == call => self.rest(PAUSE, me, env),
            Stage::Following(_) => self.follow(CallResult { call, reply }, me, env),
            Stage::Resting(_) | Stage::Mark(_) | Stage::Identity(..) => {}
            Stage::Remembering(_) | Stage::Layout(_) => {}
        }
    }

    fn rest(&mut self, pause: Duration, me: Incarnation, env: &mut Environment) {
        self.stage = Stage::Resting(env.start_timer(me, self.route, pause));
    }

    /// Compares the log with the mark, and starts to read.
    fn resume(
        &mut self,
        mark: Option<ArchiveMark>,
        identity: StreamIdentity,
        me: Incarnation,
        env: &mut Environment,
    ) {
        let archived = mark.map_or(0, |mark| mark.seq);
        let is_same = mark.is_none_or(|mark| mark.created == identity.created);
        let is_stopped = if is_same {
            identity.last_seq < archived
        } else {
            identity.first_seq <= archived
        };
        if is_stopped {
            env.invariants.stopped_with_error(self.log.partition());
            env.trace(format_args!(
                "{} is not archived: its end was lost",
                self.log
            ));
            return self.rest(STOPPED_PAUSE, me, env);
        }
        // After a restore of an older archive, messages may be trimmed that it does not have.
        let next = identity.first_seq.max(archived + 1);
        let mut reader = Reader::new(self.log, self.route, next);
        reader.ask(me, env);
        self.stage = Stage::Following(Box::new(Following {
            reader,
            created: identity.created,
            archived,
            check: env.start_timer(me, self.route, CHECK_EVERY),
            step: None,
        }));
    }

    fn follow(
        &mut self,
        CallResult { call, reply }: CallResult,
        me: Incarnation,
        env: &mut Environment,
    ) {
        let (log, route) = (self.log, self.route);
        let Stage::Following(following) = &mut self.stage else {
            return;
        };
        if following.check == call {
            following.check = env.start_timer(me, route, CHECK_EVERY);
            if following.step.is_none() {
                let call = env.call(me, route, ServerRequest::ArchiveMark(log));
                following.step = Some((call, Step::Check));
            }
            return;
        }
        if let Some((_, step)) = following.step.take_if(|(asked, _)| *asked == call) {
            let stands = match (step, reply) {
                (Step::Rest, _) => true,
                (Step::Commit(seq), Some(ServerReply::Applied(true))) => {
                    following.archived = seq;
                    following.step = Some((env.start_timer(me, route, REST), Step::Rest));
                    return;
                }
                (Step::Check, Some(ServerReply::ArchiveMark(mark))) => {
                    mark.map_or(0, |mark| mark.seq) == following.archived
                }
                (Step::Commit(_) | Step::Check, _) => false,
            };
            return if stands {
                self.commit(me, env);
            } else {
                self.rest(PAUSE, me, env);
            };
        }
        match following.reader.take(call, reply) {
            Ok(_) => self.commit(me, env),
            Err(ReadFault::Gap) => self.rest(STOPPED_PAUSE, me, env),
            Err(_) => self.rest(PAUSE, me, env),
        }
    }

    /// Archives the messages that were read, or reads on.
    fn commit(&mut self, me: Incarnation, env: &mut Environment) {
        let Stage::Following(following) = &mut self.stage else {
            return;
        };
        let read = following.reader.next_seq() - 1;
        if following.step.is_none() && read > following.archived {
            let mark = ArchiveMark {
                seq: read,
                created: following.created,
            };
            let request = ServerRequest::Archive(self.log, following.archived, mark);
            following.step = Some((env.call(me, self.route, request), Step::Commit(read)));
        }
        following.reader.ask(me, env);
    }
}
