//! Trimming both logs of a partition, as the shell of the service does it.

use std::time::Duration;

use nixfleet_bus::{LogKind, LogUsage, Margin, MarginLimits, NeededFrom, trim_position};
use nixfleet_proto::Checkpoints;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use crate::addressing::{Incarnation, Route};
use crate::model::{Log, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// How often the logs are looked at.
const EVERY: Duration = Duration::from_secs(6);
/// How long readers may be behind.
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
    /// Checkpoints that were found in the object store.
    stored: Checkpoints,
    call: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Resting,
    Cursor,
    Fills(Box<Option<Cursor>>),
    Objects(Box<(Cursor, [LogUsage; 2])>),
    /// How far the log with this index is archived.
    Mark(Box<(Option<Cursor>, [LogUsage; 2])>, usize),
    Trim(Box<(Option<Cursor>, [LogUsage; 2])>, usize),
}

impl Trimming {
    /// Looks for the first time after a pause.
    pub fn start(partition: Partition, me: Incarnation, env: &mut Environment) -> Self {
        Self {
            partition,
            margins: [Margin::new(MARGIN), Margin::new(MARGIN)],
            stored: Checkpoints::default(),
            call: env.timer(me, Route::Work(partition), EVERY),
            stage: Stage::Resting,
        }
    }

    /// Takes an answer, or that none came, or a timer.
    pub fn take(
        &mut self,
        (call, reply): (u64, Option<ServerReply>),
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
                    Stage::Fills(Box::new(cursor)),
                    ServerRequest::Fills(partition),
                    me,
                    env,
                );
            }
            (Stage::Fills(cursor), Some(ServerReply::Fills(input, output))) => {
                // Rows of streams that are gone say nothing about these.
                let cursor = cursor.filter(|cursor| cursor.stream_created == input.created);
                let fills = [input, output];
                match cursor {
                    Some(cursor) if cursor.checkpoints != self.stored => {
                        let op =
                            ServerRequest::HoldsCheckpoints(partition, cursor.checkpoints.clone());
                        let stage = Stage::Objects(Box::new((cursor, fills)));
                        self.ask(stage, op, me, env);
                    }
                    cursor => self.mark(Box::new((cursor, fills)), 0, me, env),
                }
            }
            (Stage::Objects(of), Some(ServerReply::HoldsCheckpoints(holds))) => {
                let (mut cursor, fills) = *of;
                // A checkpoint whose object is not there covers nothing.
                let announced = std::mem::take(&mut cursor.checkpoints);
                if holds {
                    self.stored.clone_from(&announced);
                    cursor.checkpoints = announced;
                }
                self.mark(Box::new((Some(cursor), fills)), 0, me, env);
            }
            (Stage::Mark(of, index), Some(ServerReply::ArchiveMark(mark))) => {
                let fill = &of.1[index];
                let mark = mark.filter(|mark| mark.created == fill.created);
                let archived = mark.map(|mark| mark.seq);
                let margin = self.margins[index].first(fill, env.now.since_start());
                let needed = NeededFrom::of(KINDS[index], of.0.as_ref(), archived, margin);
                match trim_position(fill, needed.first().0) {
                    Some(first_kept) => {
                        let op = ServerRequest::Trim(self.log(index), first_kept);
                        self.ask(Stage::Trim(of, index), op, me, env);
                    }
                    None => self.mark(of, index + 1, me, env),
                }
            }
            (Stage::Trim(of, index), Some(ServerReply::Trimmed(_))) => {
                self.mark(of, index + 1, me, env);
            }
            _ => self.rest(me, env),
        }
    }

    fn log(&self, index: usize) -> Log {
        match KINDS[index] {
            LogKind::Input => Log::Input(self.partition),
            LogKind::Output => Log::Output(self.partition),
        }
    }

    fn mark(
        &mut self,
        of: Box<(Option<Cursor>, [LogUsage; 2])>,
        index: usize,
        me: Incarnation,
        env: &mut Environment,
    ) {
        if index == KINDS.len() {
            return self.rest(me, env);
        }
        let op = ServerRequest::ArchiveMark(self.log(index));
        self.ask(Stage::Mark(of, index), op, me, env);
    }

    fn ask(&mut self, stage: Stage, op: ServerRequest, me: Incarnation, env: &mut Environment) {
        self.stage = stage;
        self.call = env.call(me, Route::Work(self.partition), op);
    }

    fn rest(&mut self, me: Incarnation, env: &mut Environment) {
        self.stage = Stage::Resting;
        self.call = env.timer(me, Route::Work(self.partition), EVERY);
    }
}
