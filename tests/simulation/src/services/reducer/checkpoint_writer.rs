//! Writes the checkpoints of an owner as the shell of the reducer does.

use std::time::Duration;

use bytes::Bytes;
use nixfleet_checkpoint::{CheckpointIdentity, EncodedCheckpoint, encode};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, Checkpoints};
use nixfleet_reducer::CheckpointState;

use crate::addressing::{Incarnation, Route};
use crate::simulated_servers::{ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// Pause before a checkpoint that could not be stored is written again.
const FAILED_PAUSE: Duration = Duration::from_secs(1);

/// The checkpoints of one owner.
#[derive(Debug)]
pub struct CheckpointWriter {
    partition: Partition,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// A checkpoint is being stored.
    Storing(u64, CheckpointRef),
    /// Waits before the next attempt.
    Resting(u64),
}

/// Result of a step of the writer.
#[derive(Debug)]
pub enum WriteProgress {
    /// It is stored.
    Stored(CheckpointRef),
    /// It is not known to be stored.
    Failed,
    /// The pause is over.
    Rested,
}

impl CheckpointWriter {
    /// Nothing is written yet.
    pub fn new(partition: Partition) -> Self {
        Self {
            partition,
            stage: Stage::Idle,
        }
    }

    /// True when a checkpoint may be written now.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Writes a state.
    pub fn write(&mut self, unwritten: &CheckpointState, me: Incarnation, env: &mut Environment) {
        let identity = CheckpointIdentity {
            partition: self.partition.number(),
            output_created: unwritten.output_created,
            state_hash: unwritten.hash(),
        };
        let encoded = encode(&unwritten.rows(), identity);
        let EncodedCheckpoint { reference, bytes } = encoded.expect("a state has rows of one form");
        let request =
            ServerRequest::PutCheckpoint(self.partition, reference.clone(), Bytes::from(bytes));
        let call = env.call(me, Route::Work(self.partition), request);
        self.stage = Stage::Storing(call, reference);
    }

    /// Processes a reply or a timer; absent when it is not of this writer.
    pub fn take(
        &mut self,
        call: u64,
        reply: Option<&ServerReply>,
        me: Incarnation,
        env: &mut Environment,
    ) -> Option<WriteProgress> {
        match &self.stage {
            Stage::Storing(asked, stored) if *asked == call => {
                if matches!(reply, Some(ServerReply::CheckpointDone)) {
                    let stored = stored.clone();
                    self.stage = Stage::Idle;
                    return Some(WriteProgress::Stored(stored));
                }
                let timer = env.start_timer(me, Route::Work(self.partition), FAILED_PAUSE);
                self.stage = Stage::Resting(timer);
                Some(WriteProgress::Failed)
            }
            Stage::Resting(timer) if *timer == call => {
                self.stage = Stage::Idle;
                Some(WriteProgress::Rested)
            }
            Stage::Idle | Stage::Storing(..) | Stage::Resting(_) => None,
        }
    }

    /// Deletes obsolete checkpoints.
    pub fn delete_others(&self, kept: Checkpoints, me: Incarnation, env: &mut Environment) {
        env.send_without_reply(
            me,
            ServerRequest::DeleteObsoleteCheckpoints(self.partition, kept),
        );
    }
}
