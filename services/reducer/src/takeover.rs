//! Becoming the owner: make sure of the logs, shut older owners out, then build the state.
//!
//! [`Takeover::need`] says what is wanted next and [`Takeover::give`] takes it, until nothing is
//! wanted any more. The barrier comes before the rows: whatever is read behind it is final.

mod barrier;
mod base;
mod hydration;
mod need;

use std::sync::Arc;

use anyhow::anyhow;
use nixfleet_bus::LastFrame;
use nixfleet_checkpoint::Checkpoint;
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Cursor, Origin};
use nixfleet_proto::{Checkpoints, InputMark, Position, mutation_testing};

use crate::checkpointing::LogsCreated;
use crate::ended::Ended;
use crate::folder::Start;
use crate::guard::{self, Logs};
use crate::pins::Pins;

use barrier::{Barrier, Outset};
use base::{Announcement, Base, Candidates, Source};
use hydration::{Hydrated, Hydration};

pub use need::{Answer, Need};

/// A partition that is owned and hydrated.
#[derive(Debug)]
pub struct Taken {
    /// The state at the barrier.
    pub state: PartitionState,
    /// What its rollouts pin, as far as it had to be fetched.
    pub pins: Pins,
    /// This owner's epoch.
    pub epoch: u64,
    /// Sequence of the barrier: the fence of the next frame.
    pub out_seq: u64,
    /// Where to go on.
    pub start: Start,
    /// What the state was built from.
    pub origin: Origin,
    /// When the logs were created.
    pub logs: LogsCreated,
    /// The checkpoints that were announced.
    pub checkpoints: Checkpoints,
    /// Sequence of the frame that announced the newest.
    pub announced_at: Option<u64>,
    /// Why checkpoints that are newer than what the state was built from could not be used.
    pub refused: Vec<String>,
}

/// A takeover on its way.
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
        candidates: Candidates,
    },
    Logs(Box<Outset>),
    Barrier(Box<Barrier>),
    Snapshot(Box<Barrier>),
    Guard {
        barrier: Box<Barrier>,
        source: Box<Source>,
    },
    Hydrate {
        barrier: Box<Barrier>,
        hydration: Box<Hydration>,
    },
    /// An answer was refused.
    Ended,
}

impl Default for Takeover {
    fn default() -> Self {
        Self::new()
    }
}

impl Takeover {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self(Stage::Cursor)
    }

    /// What to give next.
    pub fn need(&self) -> Need {
        match &self.0 {
            Stage::Cursor => Need::Cursor,
            Stage::LastFrame { .. } => Need::LastFrame,
            Stage::Announcement { seq, .. } => Need::Announcement(*seq),
            Stage::Checkpoint { candidates, .. } => {
                let named = candidates.current().cloned();
                named.map_or(Need::Nothing, Need::Checkpoint)
            }
            Stage::Logs(outset) => {
                Need::Logs(guard::sequences(outset.cursor(), outset.last.as_ref()))
            }
            Stage::Barrier(barrier) => Need::Barrier {
                frame: Box::new(barrier.frame.clone()),
                expected: barrier.expected,
            },
            Stage::Snapshot(_) => Need::Snapshot,
            Stage::Guard { source, .. } => Need::Logs(guard::sequences(source.cursor(), None)),
            Stage::Hydrate { barrier, hydration } => hydration.need(barrier.seq),
            Stage::Ended => Need::Nothing,
        }
    }

    /// Takes what [`Takeover::need`] asked for.
    ///
    /// # Errors
    /// [`Ended`]; the takeover is over then.
    pub fn give(&mut self, answer: Answer) -> Result<(), Ended> {
        let stage = std::mem::replace(&mut self.0, Stage::Ended);
        self.0 = match (stage, answer) {
            (Stage::Cursor, Answer::Cursor(cursor)) => Stage::LastFrame { cursor },
            (Stage::LastFrame { cursor }, Answer::LastFrame(last)) => begin(cursor, last),
            (Stage::Announcement { last, .. }, Answer::Announcement(frame)) => {
                let announced = frame.and_then(|frame| frame.checkpoints);
                try_next(last, Candidates::of(&announced.unwrap_or_default()))
            }
            (Stage::Checkpoint { last, candidates }, Answer::Checkpoint(found)) => {
                try_checkpoint(last, candidates, found)
            }
            (Stage::Logs(outset), Answer::Logs(logs)) => outset.check(&logs)?,
            (Stage::Barrier(barrier), Answer::Barrier(published)) => {
                behind_barrier(barrier.published(published)?)
            }
            (Stage::Snapshot(barrier), Answer::Snapshot(snapshot)) => Stage::Guard {
                barrier,
                source: Box::new(Source::Rows(snapshot)),
            },
            (Stage::Guard { barrier, source }, Answer::Logs(logs)) => {
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
                let fault = anyhow!("{answer:?} is not the answer to {:?}", Self(stage).need());
                return Err(Ended::Failed(fault));
            }
        };
        Ok(())
    }

    /// The owned partition, once nothing is needed any more.
    pub fn finish(self) -> Option<Taken> {
        if self.need() != Need::Nothing {
            return None;
        }
        let Stage::Hydrate { barrier, hydration } = self.0 else {
            return None;
        };
        let frame = barrier.frame;
        let last_input = frame.last_input;
        let Hydrated {
            state,
            pins,
            origin,
            checkpoints,
        } = hydration.finish()?;
        Some(Taken {
            state,
            pins,
            logs: barrier.logs,
            // Those of logs that are gone are gone with them.
            checkpoints: if barrier.replaced {
                Checkpoints::default()
            } else {
                checkpoints
            },
            announced_at: frame.announced_at,
            refused: barrier.refused,
            epoch: frame.epoch,
            out_seq: barrier.seq,
            start: Start {
                last_input,
                last_input_id: frame.last_input_id.map(Arc::from),
                next: last_input.map_or(Position { seq: 1, index: 0 }, InputMark::next),
            },
            origin,
        })
    }
}

/// Whatever is read from here on is final.
fn behind_barrier(mut barrier: Barrier) -> Stage {
    let base = barrier.base.take();
    let barrier = Box::new(barrier);
    match base {
        Some(base) => Stage::Guard {
            barrier,
            source: Box::new(Source::Checkpoint(base)),
        },
        None => Stage::Snapshot(barrier),
    }
}

/// Rows are the state; without them it is in the newest checkpoint and the log behind it.
fn begin(cursor: Option<Cursor>, last: Option<LastFrame>) -> Stage {
    let announcement = Announcement::of(last.as_ref());
    match (cursor, last, announcement) {
        (None, Some(last), Some(Announcement::Here(announced))) => {
            try_next(last, Candidates::of(&announced))
        }
        (None, Some(last), Some(Announcement::At(seq))) => Stage::Announcement { last, seq },
        (cursor, last, _) => Stage::Logs(Box::new(Outset {
            cursor,
            last,
            base: None,
            candidates: Candidates::default(),
        })),
    }
}

fn try_next(last: LastFrame, candidates: Candidates) -> Stage {
    if candidates.current().is_some() {
        return Stage::Checkpoint { last, candidates };
    }
    Stage::Logs(Box::new(Outset {
        cursor: None,
        last: Some(last),
        base: None,
        candidates,
    }))
}

fn try_checkpoint(
    last: LastFrame,
    mut candidates: Candidates,
    found: Result<Box<Checkpoint>, String>,
) -> Stage {
    match found.and_then(|checkpoint| Base::restore(*checkpoint)) {
        Ok(base) => Stage::Logs(Box::new(Outset {
            cursor: None,
            last: Some(last),
            base: Some(base),
            candidates,
        })),
        Err(fault) => {
            candidates.refuse(fault);
            try_next(last, candidates)
        }
    }
}

impl Outset {
    fn check(mut self, logs: &Logs) -> Result<Stage, Ended> {
        if let Some(base) = self.base.take() {
            match (base.check(logs), self.last.take()) {
                (Err(fault), Some(last)) => {
                    self.candidates.refuse(fault);
                    return Ok(try_next(last, self.candidates));
                }
                (_, last) => {
                    self.last = last;
                    self.base = Some(base);
                }
            }
        } else {
            self.candidates.none_needed(logs)?;
        }
        let barrier = Box::new(self.barrier(logs)?);
        if mutation_testing::is_active("takeover-skip-barrier") {
            let seq = barrier.expected;
            return Ok(Stage::Snapshot(Box::new(Barrier { seq, ..*barrier })));
        }
        Ok(Stage::Barrier(barrier))
    }
}
