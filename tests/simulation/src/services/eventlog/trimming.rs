//! Trims both logs of a partition in the order in which the shell of eventlog does.

use std::time::Duration;

use nixfleet_bus::{LogKind, LogUsage, Margin, MarginLimits, NeededFrom, trim_position};
use nixfleet_proto::Checkpoints;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use crate::addressing::{Incarnation, Route};
use crate::simulated_servers::{CallResult, LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// How often the logs are checked.
const EVERY: Duration = Duration::from_secs(6);
/// How far readers may be behind.
const MARGIN: MarginLimits = MarginLimits {
    age: Duration::from_secs(10),
    bytes: u64::MAX,
};
/// Both logs, in the order in which they are trimmed.
const KINDS: [LogKind; 2] = [LogKind::Input, LogKind::Output];

/// The logs of one partition.
#[derive(Debug)]
pub struct Trimming {
    partition: Partition,
    margins: [Margin; 2],
    /// Checkpoints that are known to be in the object store.
    stored: Checkpoints,
    call: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Resting,
    Cursor,
    LogUsage(Option<Box<Cursor>>),
    Checkpoints(Box<Cursor>, [LogUsage; 2]),
    /// How far the log with this index of [`KINDS`] is archived.
    ArchiveMark(Box<TrimInputs>, usize),
    Trim(Box<TrimInputs>, usize),
}

/// What decides how far the logs may be trimmed.
#[derive(Debug)]
struct TrimInputs {
    /// The cursor of the rows, with the checkpoints that are stored.
    cursor: Option<Cursor>,
    /// In the order of [`KINDS`].
    usage: [LogUsage; 2],
}

impl Trimming {
    /// Starts with a pause.
    pub fn start(partition: Partition, me: Incarnation, env: &mut Environment) -> Self {
        Self {
            partition,
            margins: [Margin::new(MARGIN), Margin::new(MARGIN)],
            stored: Checkpoints::default(),
            call: env.start_timer(me, Route::Work(partition), EVERY),
            stage: Stage::Resting,
        }
    }

    /// Processes a reply, a timeout or a timer.
    pub fn take(
        &mut self,
        CallResult { call, reply }: CallResult,
        me: Incarnation,
        env: &mut Environment,
    ) {
        if self.call != call {
            return;
        }
        let partition = self.partition;
        match (std::mem::replace(&mut self.stage, Stage::Resting), reply) {
            (Stage::Resting, _) => {
                self.ask(Stage::Cursor, ServerRequest::Cursor(partition), me, env)
            }
            (Stage::Cursor, Some(ServerReply::Cursor(cursor))) => {
                self.ask(
                    Stage::LogUsage(cursor.map(Box::new)),
                    ServerRequest::LogUsage(partition),
                    me,
                    env,
                );
            }
            (Stage::LogUsage(cursor), Some(ServerReply::LogUsage { input, output })) => {
                // A cursor of an earlier stream does not apply to this one.
                let cursor = cursor.filter(|cursor| cursor.stream_created == input.created);
                let usage = [input, output];
                match cursor {
                    Some(cursor) if cursor.checkpoints != self.stored => {
                        let request = ServerRequest::AreCheckpointsStored(
                            partition,
                            cursor.checkpoints.clone(),
                        );
                        let stage = Stage::Checkpoints(cursor, usage);
                        self.ask(stage, request, me, env);
                    }
                    cursor => {
                        let cursor = cursor.map(|cursor| *cursor);
                        self.ask_mark(Box::new(TrimInputs { cursor, usage }), 0, me, env);
                    }
                }
            }
            (
                Stage::Checkpoints(mut cursor, usage),
                Some(ServerReply::AreCheckpointsStored(holds)),
            ) => {
                // A checkpoint without its object does not count.
                let announced = std::mem::take(&mut cursor.checkpoints);
                if holds {
                    self.stored.clone_from(&announced);
                    cursor.checkpoints = announced;
                }
                let cursor = Some(*cursor);
                self.ask_mark(Box::new(TrimInputs { cursor, usage }), 0, me, env);
            }
            (Stage::ArchiveMark(inputs, index), Some(ServerReply::ArchiveMark(mark))) => {
                let usage = &inputs.usage[index];
                let mark = mark.filter(|mark| mark.created == usage.created);
                let archived = mark.map(|mark| mark.seq);
                let margin = self.margins[index].first(usage, env.now.since_start());
                let needed = NeededFrom::of(KINDS[index], inputs.cursor.as_ref(), archived, margin);
                match trim_position(usage, needed.first().0) {
                    Some(first_kept) => {
                        let request = ServerRequest::Trim(self.log(index), first_kept);
                        self.ask(Stage::Trim(inputs, index), request, me, env);
                    }
                    None => self.ask_mark(inputs, index + 1, me, env),
                }
            }
            (Stage::Trim(inputs, index), Some(ServerReply::Trimmed(_))) => {
                self.ask_mark(inputs, index + 1, me, env);
            }
            _ => self.rest(me, env),
        }
    }

    fn log(&self, index: usize) -> LogId {
        match KINDS[index] {
            LogKind::Input => LogId::Input(self.partition),
            LogKind::Output => LogId::Output(self.partition),
        }
    }

    fn ask_mark(
        &mut self,
        inputs: Box<TrimInputs>,
        index: usize,
        me: Incarnation,
        env: &mut Environment,
    ) {
        if index == KINDS.len() {
            return self.rest(me, env);
        }
        let request = ServerRequest::ArchiveMark(self.log(index));
        self.ask(Stage::ArchiveMark(inputs, index), request, me, env);
    }

    fn ask(
        &mut self,
        stage: Stage,
        request: ServerRequest,
        me: Incarnation,
        env: &mut Environment,
    ) {
        self.stage = stage;
        self.call = env.call(me, Route::Work(self.partition), request);
    }

    fn rest(&mut self, me: Incarnation, env: &mut Environment) {
        self.stage = Stage::Resting;
        self.call = env.start_timer(me, Route::Work(self.partition), EVERY);
    }
}
