//! Writes rows from the newest usable checkpoint, as the shell of the applier does.

use std::collections::VecDeque;

use nixfleet_applier::PartitionLogs;
use nixfleet_checkpoint::{Checkpoint, CheckpointError};
use nixfleet_proto::CheckpointRef;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use crate::addressing::{Incarnation, Route};
use crate::simulated_servers::{CallResult, Restore, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// A restore in progress.
#[derive(Debug)]
pub struct CheckpointRestore {
    partition: Partition,
    cursor: Option<Cursor>,
    logs: PartitionLogs,
    call: u64,
    /// Checkpoints to try, newest first; absent until the announced ones are known.
    untried: Option<VecDeque<CheckpointRef>>,
    refused: Vec<String>,
}

/// State of a restore after a step.
#[derive(Debug)]
pub enum RestoreProgress {
    /// A call is pending.
    Waits,
    /// The rows are written, by this process or another one.
    Written,
    /// No checkpoint is announced.
    NothingAnnounced,
    /// A call timed out.
    NoReply,
    /// No checkpoint is usable.
    Refused(String),
}

impl CheckpointRestore {
    /// Starts with reading the announced checkpoints.
    pub fn start(
        (partition, cursor): (Partition, Option<Cursor>),
        logs: PartitionLogs,
        me: Incarnation,
        env: &mut Environment,
    ) -> Self {
        Self {
            partition,
            cursor,
            logs,
            call: env.call(
                me,
                Route::Work(partition),
                ServerRequest::AnnouncedCheckpoints(partition),
            ),
            untried: None,
            refused: Vec::new(),
        }
    }

    /// Cursor and logs that the restore started with.
    pub fn located(&mut self) -> (Option<Cursor>, PartitionLogs) {
        (self.cursor.take(), self.logs.clone())
    }

    /// Processes a reply or a timeout.
    pub fn take(
        &mut self,
        CallResult { call, reply }: CallResult,
        me: Incarnation,
        env: &mut Environment,
    ) -> RestoreProgress {
        if self.call != call {
            return RestoreProgress::Waits;
        }
        match (reply, &mut self.untried) {
            (
                Some(ServerReply::AnnouncedCheckpoints {
                    checkpoints: announced,
                    ..
                }),
                None,
            ) => {
                if announced.is_empty() {
                    return RestoreProgress::NothingAnnounced;
                }
                self.untried = Some(announced.newest_first().cloned().collect());
                self.load(me, env)
            }
            (Some(ServerReply::Checkpoint(found)), Some(untried)) => {
                let Some(named) = untried.pop_front() else {
                    return RestoreProgress::NoReply;
                };
                let found = found.ok_or(CheckpointError::Missing);
                let number = self.partition.number();
                let read = found.and_then(|bytes| Checkpoint::decode(&bytes, number, &named));
                let (input, output) = (&self.logs.input, &self.logs.output);
                let read = read.and_then(|read| {
                    read.check_logs(input.created, output.created, output.first_seq)?;
                    Ok(read)
                });
                match read {
                    Ok(checkpoint) => self.write(checkpoint, me, env),
                    Err(fault) => {
                        self.refused.push(fault.to_string());
                        self.load(me, env)
                    }
                }
            }
            (Some(ServerReply::Applied(_)), _) => RestoreProgress::Written,
            _ => RestoreProgress::NoReply,
        }
    }

    fn load(&mut self, me: Incarnation, env: &mut Environment) -> RestoreProgress {
        let next = self.untried.as_ref().and_then(VecDeque::front).cloned();
        let Some(named) = next else {
            return RestoreProgress::Refused(self.refused.join("; "));
        };
        let request = ServerRequest::GetCheckpoint(self.partition, named);
        self.call = env.call(me, Route::Work(self.partition), request);
        RestoreProgress::Waits
    }

    fn write(
        &mut self,
        checkpoint: Checkpoint,
        me: Incarnation,
        env: &mut Environment,
    ) -> RestoreProgress {
        let request = ServerRequest::Restore(Box::new(Restore {
            partition: self.partition,
            previous: self.cursor.as_ref().map_or(0, |cursor| cursor.out_seq),
            rows: checkpoint.rows,
        }));
        self.call = env.call(me, Route::Work(self.partition), request);
        RestoreProgress::Waits
    }
}
