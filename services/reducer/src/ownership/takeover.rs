//! Takeover of a partition: check the logs, fence older owners, then build the state.
//!
//! [`Takeover::next_request`] names the next input and [`Takeover::give`] takes it, until
//! [`TakeoverRequest::Done`]. Rows are read behind the barrier, so that they are final.

mod barrier;
mod hydration;
pub mod log_check;
mod request;
mod state_source;

use std::sync::Arc;

use anyhow::anyhow;
use nixfleet_bus::LastFrame;
use nixfleet_checkpoint::Checkpoint;
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Cursor, Origin};
use nixfleet_proto::{Checkpoints, InputMark, Position, mutation_testing};

use crate::input::fold::FoldStart;
use crate::input::pinned_manifests::PinnedManifests;
use crate::ownership::checkpoint_schedule::LogCreationTimes;
use crate::ownership::ownership_end::OwnershipEnd;
use log_check::PartitionLogs;

use barrier::{Barrier, BarrierInputs};
use hydration::{Hydration, HydrationResult};
use state_source::{Announcement, CheckpointCandidates, RestoredCheckpoint, StateSource};

pub use request::{TakeoverRequest, TakeoverResponse};

/// An owned partition with its state.
#[derive(Debug)]
pub struct HydratedPartition {
    /// State at the barrier.
    pub state: PartitionState,
    /// Pinned content of its rollouts, as far as it was fetched.
    pub pinned: PinnedManifests,
    /// Epoch of this owner.
    pub epoch: u64,
    /// Sequence of the barrier, which fences the next frame.
    pub out_seq: u64,
    /// Position at which the fold continues.
    pub start: FoldStart,
    /// Origin of the state.
    pub origin: Origin,
    /// Creation times of the logs.
    pub logs: LogCreationTimes,
    /// The announced checkpoints.
    pub checkpoints: Checkpoints,
    /// Sequence of the frame that announced the newest checkpoint.
    pub announced_at: Option<u64>,
    /// Reasons why newer checkpoints were not used.
    pub refused: Vec<String>,
}

/// A takeover in progress.
#[derive(Debug)]
pub struct Takeover(Stage);

#[derive(Debug)]
enum Stage {
    Cursor,
    LastFrame {
        cursor: Option<Cursor>,
    },
    Announcement {
        last: LastFrame,
        seq: u64,
    },
    Checkpoint {
        last: LastFrame,
        candidates: CheckpointCandidates,
    },
    Logs(Box<BarrierInputs>),
    Barrier(Box<Barrier>),
    Snapshot(Box<Barrier>),
    Guard {
        barrier: Box<Barrier>,
        source: Box<StateSource>,
    },
    Hydrate {
        barrier: Box<Barrier>,
        hydration: Box<Hydration>,
    },
    /// A response was refused.
    Ended,
}

impl Default for Takeover {
    fn default() -> Self {
        Self::new()
    }
}

impl Takeover {
    /// Creates a takeover without any input.
    pub fn new() -> Self {
        Self(Stage::Cursor)
    }

    /// The next input to give.
    pub fn next_request(&self) -> TakeoverRequest {
        match &self.0 {
            Stage::Cursor => TakeoverRequest::Cursor,
            Stage::LastFrame { .. } => TakeoverRequest::LastFrame,
            Stage::Announcement { seq, .. } => TakeoverRequest::Announcement(*seq),
            Stage::Checkpoint { candidates, .. } => {
                let named = candidates.current().cloned();
                named.map_or(TakeoverRequest::Done, TakeoverRequest::Checkpoint)
            }
            Stage::Logs(outset) => {
                TakeoverRequest::Logs(log_check::sequences(outset.cursor(), outset.last.as_ref()))
            }
            Stage::Barrier(barrier) => TakeoverRequest::Barrier {
                frame: Box::new(barrier.frame.clone()),
                expected: barrier.expected,
            },
            Stage::Snapshot(_) => TakeoverRequest::Snapshot,
            Stage::Guard { source, .. } => {
                TakeoverRequest::Logs(log_check::sequences(source.cursor(), None))
            }
            Stage::Hydrate { barrier, hydration } => hydration.next_request(barrier.seq),
            Stage::Ended => TakeoverRequest::Done,
        }
    }

    /// Takes the response to [`Takeover::next_request`].
    ///
    /// # Errors
    /// [`OwnershipEnd`]; the takeover is over then.
    pub fn give(&mut self, answer: TakeoverResponse) -> Result<(), OwnershipEnd> {
        let stage = std::mem::replace(&mut self.0, Stage::Ended);
        self.0 = match (stage, answer) {
            (Stage::Cursor, TakeoverResponse::Cursor(cursor)) => Stage::LastFrame { cursor },
            (Stage::LastFrame { cursor }, TakeoverResponse::LastFrame(last)) => {
                choose_source(cursor, last)
            }
            (Stage::Announcement { last, .. }, TakeoverResponse::Announcement(frame)) => {
                let announced = frame.and_then(|frame| frame.checkpoints);
                try_next_checkpoint(
                    last,
                    CheckpointCandidates::of(&announced.unwrap_or_default()),
                )
            }
            (Stage::Checkpoint { last, candidates }, TakeoverResponse::Checkpoint(found)) => {
                try_checkpoint(last, candidates, found)
            }
            (Stage::Logs(outset), TakeoverResponse::Logs(logs)) => outset.check(&logs)?,
            (Stage::Barrier(barrier), TakeoverResponse::Barrier(published)) => {
                behind_barrier(barrier.published(published)?)
            }
            (Stage::Snapshot(barrier), TakeoverResponse::Snapshot(snapshot)) => Stage::Guard {
                barrier,
                source: Box::new(StateSource::Rows(snapshot)),
            },
            (Stage::Guard { barrier, source }, TakeoverResponse::Logs(logs)) => {
                let hydration = Box::new(barrier.hydrate(*source, &logs)?);
                Stage::Hydrate { barrier, hydration }
            }
            (
                Stage::Hydrate {
                    barrier,
                    mut hydration,
                },
                answer,
            ) => {
                hydration.give(answer, barrier.seq)?;
                Stage::Hydrate { barrier, hydration }
            }
            (stage, answer) => {
                let fault = anyhow!(
                    "{answer:?} is not the response to {:?}",
                    Self(stage).next_request()
                );
                return Err(OwnershipEnd::Failed(fault));
            }
        };
        Ok(())
    }

    /// The owned partition, once nothing is requested any more.
    pub fn finish(self) -> Option<HydratedPartition> {
        if self.next_request() != TakeoverRequest::Done {
            return None;
        }
        let Stage::Hydrate { barrier, hydration } = self.0 else {
            return None;
        };
        let frame = barrier.frame;
        let last_input = frame.last_input;
        let HydrationResult {
            state,
            pinned,
            origin,
            checkpoints,
        } = hydration.finish()?;
        Some(HydratedPartition {
            state,
            pinned,
            logs: barrier.logs,
            // Checkpoints of lost logs are lost with them.
            checkpoints: if barrier.replaced {
                Checkpoints::default()
            } else {
                checkpoints
            },
            announced_at: frame.announced_at,
            refused: barrier.refused,
            epoch: frame.epoch,
            out_seq: barrier.seq,
            start: FoldStart {
                last_input,
                last_input_id: frame.last_input_id.map(Arc::from),
                next: last_input.map_or(Position { seq: 1, index: 0 }, InputMark::next),
            },
            origin,
        })
    }
}

/// Continues behind the barrier, where everything that is read is final.
fn behind_barrier(mut barrier: Barrier) -> Stage {
    let checkpoint = barrier.checkpoint.take();
    let barrier = Box::new(barrier);
    match checkpoint {
        Some(checkpoint) => Stage::Guard {
            barrier,
            source: Box::new(StateSource::Checkpoint(checkpoint)),
        },
        None => Stage::Snapshot(barrier),
    }
}

/// Rows give the state; without them the newest checkpoint and the log behind it do.
fn choose_source(cursor: Option<Cursor>, last: Option<LastFrame>) -> Stage {
    let announcement = Announcement::of(last.as_ref());
    match (cursor, last, announcement) {
        (None, Some(last), Some(Announcement::Here(announced))) => {
            try_next_checkpoint(last, CheckpointCandidates::of(&announced))
        }
        (None, Some(last), Some(Announcement::At(seq))) => Stage::Announcement { last, seq },
        (cursor, last, _) => Stage::Logs(Box::new(BarrierInputs {
            cursor,
            last,
            checkpoint: None,
            candidates: CheckpointCandidates::default(),
        })),
    }
}

fn try_next_checkpoint(last: LastFrame, candidates: CheckpointCandidates) -> Stage {
    if candidates.current().is_some() {
        return Stage::Checkpoint { last, candidates };
    }
    Stage::Logs(Box::new(BarrierInputs {
        cursor: None,
        last: Some(last),
        checkpoint: None,
        candidates,
    }))
}

fn try_checkpoint(
    last: LastFrame,
    mut candidates: CheckpointCandidates,
    found: Result<Box<Checkpoint>, String>,
) -> Stage {
    match found.and_then(|checkpoint| RestoredCheckpoint::restore(*checkpoint)) {
        Ok(checkpoint) => Stage::Logs(Box::new(BarrierInputs {
            cursor: None,
            last: Some(last),
            checkpoint: Some(checkpoint),
            candidates,
        })),
        Err(fault) => {
            candidates.refuse(fault);
            try_next_checkpoint(last, candidates)
        }
    }
}

impl BarrierInputs {
    fn check(mut self, logs: &PartitionLogs) -> Result<Stage, OwnershipEnd> {
        if let Some(checkpoint) = self.checkpoint.take() {
            match (checkpoint.check(logs), self.last.take()) {
                (Err(fault), Some(last)) => {
                    self.candidates.refuse(fault);
                    return Ok(try_next_checkpoint(last, self.candidates));
                }
                (_, last) => {
                    self.last = last;
                    self.checkpoint = Some(checkpoint);
                }
            }
        } else {
            self.candidates.check_log_is_complete(logs)?;
        }
        let barrier = Box::new(self.barrier(logs)?);
        if mutation_testing::is_active("takeover-skip-barrier") {
            let seq = barrier.expected;
            return Ok(Stage::Snapshot(Box::new(Barrier { seq, ..*barrier })));
        }
        Ok(Stage::Barrier(barrier))
    }
}
