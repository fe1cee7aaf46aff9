//! Rows from the newest checkpoint that can be used, as the applier's shell writes them.

use std::collections::VecDeque;

use nixfleet_applier::PartitionLogs;
use nixfleet_checkpoint::{Checkpoint, CheckpointError};
use nixfleet_proto::CheckpointRef;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use crate::model::{Op, Reply, Restore};
use crate::world::env::Env;
use crate::world::event::{Alive, Route};

/// Rows on their way from a checkpoint.
#[derive(Debug)]
pub struct Restoring {
    partition: Partition,
    cursor: Option<Cursor>,
    logs: PartitionLogs,
    call: u64,
    /// Checkpoints to try, the newest first; absent until it is known which were announced.
    untried: Option<VecDeque<CheckpointRef>>,
    refused: Vec<String>,
}

/// What came of an answer.
#[derive(Debug)]
pub enum Restored {
    /// Something else is being asked for.
    Waits,
    /// The rows are written, or somebody else wrote some.
    Written,
    /// There is no checkpoint.
    NothingAnnounced,
    /// A server did not answer.
    Silence,
    /// No checkpoint can be used.
    Refused(String),
}

impl Restoring {
    /// Asks which checkpoints were announced.
    pub fn start(
        (partition, cursor): (Partition, Option<Cursor>),
        logs: PartitionLogs,
        me: Alive,
        env: &mut Env,
    ) -> Self {
        Self {
            partition,
            cursor,
            logs,
            call: env.call(me, Route::Work(partition), Op::Announced(partition)),
            untried: None,
            refused: Vec::new(),
        }
    }

    /// What it began with.
    pub fn located(&mut self) -> (Option<Cursor>, PartitionLogs) {
        (self.cursor.take(), self.logs.clone())
    }

    /// Takes an answer, or that none came.
    pub fn take(
        &mut self,
        (call, reply): (u64, Option<Reply>),
        me: Alive,
        env: &mut Env,
    ) -> Restored {
        if self.call != call {
            return Restored::Waits;
        }
        match (reply, &mut self.untried) {
            (Some(Reply::Announced(_, announced)), None) => {
                if announced.is_empty() {
                    return Restored::NothingAnnounced;
                }
                self.untried = Some(announced.newest_first().cloned().collect());
                self.load(me, env)
            }
            (Some(Reply::Checkpoint(found)), Some(untried)) => {
                let Some(named) = untried.pop_front() else {
                    return Restored::Silence;
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
            (Some(Reply::Applied(_)), _) => Restored::Written,
            _ => Restored::Silence,
        }
    }

    fn load(&mut self, me: Alive, env: &mut Env) -> Restored {
        let next = self.untried.as_ref().and_then(VecDeque::front).cloned();
        let Some(named) = next else {
            return Restored::Refused(self.refused.join("; "));
        };
        let op = Op::GetCheckpoint(self.partition, named);
        self.call = env.call(me, Route::Work(self.partition), op);
        Restored::Waits
    }

    fn write(&mut self, checkpoint: Checkpoint, me: Alive, env: &mut Env) -> Restored {
        let op = Op::Restore(Box::new(Restore {
            partition: self.partition,
            previous: self.cursor.as_ref().map_or(0, |cursor| cursor.out_seq),
            rows: checkpoint.rows,
        }));
        self.call = env.call(me, Route::Work(self.partition), op);
        Restored::Waits
    }
}
