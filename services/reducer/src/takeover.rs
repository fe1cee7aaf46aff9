//! Becoming the owner: make sure of the logs, shut older owners out, then build the state.
//!
//! [`Takeover::need`] says what is wanted next and [`Takeover::give`] takes it, until nothing is
//! wanted any more. The barrier comes before the rows: whatever is read behind it is final.

mod hydration;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use nixfleet_bus::{LastFrame, Message, PublishError};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Cursor, Origin, PartitionSnapshot};
use nixfleet_proto::{InputMark, ManifestHash, OutputFrame, Position, mutant};

use crate::ended::Ended;
use crate::folder::Start;
use crate::guard::{self, Logs, Passed};
use crate::pins::{Fetched, Pins};

use hydration::Hydration;

/// What a takeover waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The cursor of the partition's rows.
    Cursor,
    /// The last output frame, read through the leader.
    LastFrame,
    /// Both logs, read through the leader, with the input's message ids at these sequences.
    Logs(BTreeSet<u64>),
    /// The fate of this frame, published behind this output sequence or not at all.
    Barrier {
        /// The frame.
        frame: OutputFrame,
        /// The sequence it must follow.
        expected: u64,
    },
    /// All rows of the partition, of one instant.
    Snapshot,
    /// What this manifest pins.
    Manifest(ManifestHash),
    /// The output messages of these sequences, or the first few of them.
    Frames {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Nothing: [`Takeover::finish`].
    Nothing,
}

/// What was asked for, in the same order as [`Need`].
#[derive(Debug)]
#[expect(missing_docs, reason = "the needs say what is what")]
pub enum Answer {
    Cursor(Option<Cursor>),
    LastFrame(Option<LastFrame>),
    Logs(Logs),
    Barrier(Result<u64, PublishError>),
    Snapshot(PartitionSnapshot),
    Manifest(Fetched),
    Frames(Vec<Message>),
}

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
    Logs(Outset),
    Barrier(Barrier),
    Snapshot(Barrier),
    Guard {
        barrier: Barrier,
        snapshot: Box<PartitionSnapshot>,
    },
    Hydrate {
        barrier: Barrier,
        hydration: Box<Hydration>,
    },
    /// An answer was refused.
    Ended,
}

/// What there is before anything is published.
#[derive(Debug)]
struct Outset {
    cursor: Option<Cursor>,
    last: Option<LastFrame>,
}

/// The frame that shuts older owners out.
#[derive(Debug)]
struct Barrier {
    frame: OutputFrame,
    /// The sequence it must follow.
    expected: u64,
    /// Its own; 0 until it is published.
    seq: u64,
    /// First output sequence that the state is built from.
    own: u64,
    /// The input stream was created anew.
    replaced: bool,
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
            Stage::Logs(Outset { cursor, last }) => {
                Need::Logs(guard::sequences(cursor.as_ref(), last.as_ref()))
            }
            Stage::Barrier(barrier) => Need::Barrier {
                frame: barrier.frame.clone(),
                expected: barrier.expected,
            },
            Stage::Snapshot(_) => Need::Snapshot,
            Stage::Guard { snapshot, .. } => {
                Need::Logs(guard::sequences(snapshot.cursor.as_ref(), None))
            }
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
            (Stage::LastFrame { cursor }, Answer::LastFrame(last)) => {
                Stage::Logs(Outset { cursor, last })
            }
            (Stage::Logs(outset), Answer::Logs(logs)) => {
                let barrier = outset.barrier(&logs)?;
                if mutant::is("takeover-skip-barrier") {
                    let seq = barrier.expected;
                    Stage::Snapshot(Barrier { seq, ..barrier })
                } else {
                    Stage::Barrier(barrier)
                }
            }
            (Stage::Barrier(barrier), Answer::Barrier(published)) => {
                Stage::Snapshot(barrier.published(published)?)
            }
            (Stage::Snapshot(barrier), Answer::Snapshot(snapshot)) => Stage::Guard {
                barrier,
                snapshot: Box::new(snapshot),
            },
            (Stage::Guard { barrier, snapshot }, Answer::Logs(logs)) => {
                let hydration = Box::new(barrier.hydrate(*snapshot, &logs)?);
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
        let (state, pins, origin) = hydration.finish()?;
        Some(Taken {
            state,
            pins,
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

impl Outset {
    /// Nothing is published on logs that are not those of the rows: barriers would fill the gap that
    /// shows the loss.
    fn barrier(self, logs: &Logs) -> Result<Barrier, Ended> {
        let (cursor, last) = (self.cursor.as_ref(), self.last.as_ref());
        let passed = guard::check(cursor, last, logs).map_err(Ended::halted)?;
        let origin = origin_of(cursor, &passed);
        let epochs = [
            cursor.map(|cursor| cursor.epoch),
            last.map(|last| last.frame.epoch),
        ];
        let epoch = epochs.into_iter().flatten().max().unwrap_or(0) + 1;
        let (last_input, last_input_id) = match last {
            Some(last) if !mutant::is("takeover-from-cursor") => {
                (last.frame.last_input, last.frame.last_input_id.clone())
            }
            // An output log that was created anew knows less than the rows.
            Some(_) | None => (
                cursor.and_then(|cursor| cursor.input),
                cursor.and_then(|cursor| cursor.input_msg_id.clone()),
            ),
        };
        let mut frame = OutputFrame {
            last_input,
            last_input_id,
            rebuilt_from: origin.marker(),
            ..OutputFrame::new(epoch)
        };
        // Where neither rows nor frames say where the fold was, it begins with the log.
        let is_unknown = cursor.is_none() && last.is_none() && logs.input.first_seq > 1;
        if passed.replaced || is_unknown {
            skip_to(&mut frame, logs.input.first_seq);
        }
        Ok(Barrier {
            frame,
            expected: last.map_or(0, |last| last.seq),
            seq: 0,
            own: origin.own,
            replaced: passed.replaced,
        })
    }
}

/// What lies before a log that was created anew will never come; the barrier says that it is covered,
/// so that the next owner and the rows go on in the new log.
fn skip_to(frame: &mut OutputFrame, first_seq: u64) {
    let skipped = InputMark {
        seq: first_seq.saturating_sub(1),
        index: 0,
        of: 1,
    };
    if frame.last_input.is_none_or(|mark| mark.seq < skipped.seq) {
        frame.last_input = Some(skipped);
        frame.last_input_id = None;
    }
}

fn origin_of(cursor: Option<&Cursor>, passed: &Passed) -> Origin {
    cursor.map_or_else(
        || Origin::of_log(passed.output_from),
        |cursor| cursor.origin,
    )
}

impl Barrier {
    fn published(self, published: Result<u64, PublishError>) -> Result<Self, Ended> {
        match published {
            Ok(seq) => Ok(Self { seq, ..self }),
            Err(PublishError::Fenced { .. }) => Err(Ended::Fenced),
            Err(error @ (PublishError::TooLarge { .. } | PublishError::Unavailable(_))) => {
                Err(Ended::failed(error))
            }
        }
    }

    /// The rows may have moved since the cursor was read, but not on to another log or beginning.
    fn hydrate(&self, snapshot: PartitionSnapshot, logs: &Logs) -> Result<Hydration, Ended> {
        let cursor = snapshot.cursor.as_ref();
        if cursor.is_some_and(|cursor| cursor.out_seq > self.seq) {
            // Rows of frames behind the barrier are those of another owner.
            return Err(Ended::Fenced);
        }
        let passed = guard::check(cursor, None, logs).map_err(Ended::halted)?;
        let origin = origin_of(cursor, &passed);
        if origin.own != self.own || (passed.replaced && !self.replaced) {
            let fault = anyhow!("the rows or the logs were exchanged during the takeover");
            return Err(Ended::Failed(fault));
        }
        Hydration::new(snapshot, origin, passed.output_from).context_if_halted("reading the rows")
    }
}

/// Says where a contradiction was found.
trait ContextIfHalted<T> {
    fn context_if_halted(self, doing: &str) -> Result<T, Ended>;
}

impl<T> ContextIfHalted<T> for Result<T, Ended> {
    fn context_if_halted(self, doing: &str) -> Result<T, Ended> {
        match self {
            Err(Ended::Halted(error)) => Err(error)
                .with_context(|| doing.to_owned())
                .map_err(Ended::Halted),
            other => other,
        }
    }
}
