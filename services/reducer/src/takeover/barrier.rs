//! The frame that shuts older owners out, and what it takes to write it.

use anyhow::anyhow;
use nixfleet_bus::{LastFrame, PublishError};
use nixfleet_proto::snapshot::{Cursor, Origin};
use nixfleet_proto::{InputMark, OutputFrame, mutation_testing};

use super::base::{Base, Candidates, Source};
use super::hydration::Hydration;
use crate::checkpointing::LogsCreated;
use crate::ended::Ended;
use crate::guard::{self, Logs, Passed};

/// What there is before anything is published.
#[derive(Debug)]
pub(super) struct Outset {
    pub(super) cursor: Option<Cursor>,
    pub(super) last: Option<LastFrame>,
    /// In place of rows.
    pub(super) base: Option<Base>,
    pub(super) candidates: Candidates,
}

/// The frame that shuts older owners out.
#[derive(Debug)]
pub(super) struct Barrier {
    pub(super) frame: OutputFrame,
    /// The sequence it must follow.
    pub(super) expected: u64,
    /// Its own; 0 until it is published.
    pub(super) seq: u64,
    /// First output sequence that the state is built from.
    pub(super) own: u64,
    /// The input stream was created anew.
    pub(super) replaced: bool,
    /// In place of rows.
    pub(super) base: Option<Base>,
    pub(super) logs: LogsCreated,
    pub(super) refused: Vec<String>,
}

impl Outset {
    /// Where rows or checkpoint stand.
    pub(super) fn cursor(&self) -> Option<&Cursor> {
        let base = self.base.as_ref().map(|base| &base.cursor);
        self.cursor.as_ref().or(base)
    }

    /// Nothing is published on logs that are not those of the rows: barriers would fill the gap that
    /// shows the loss.
    pub(super) fn barrier(self, logs: &Logs) -> Result<Barrier, Ended> {
        let (cursor, last) = (self.cursor(), self.last.as_ref());
        let passed = guard::check(cursor, last, logs).map_err(Ended::halted)?;
        let origin = origin_of(cursor, &passed);
        let epochs = [
            cursor.map(|cursor| cursor.epoch),
            last.map(|last| last.frame.epoch),
        ];
        let epoch = epochs.into_iter().flatten().max().unwrap_or(0) + 1;
        let (last_input, last_input_id) = match last {
            Some(last) if !mutation_testing::is_active("takeover-from-cursor") => {
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
            rebuilt_from: origin.rebuilt_from(),
            announced_at: last.and_then(announced_at),
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
            base: self.base,
            logs: LogsCreated {
                input: logs.input.created,
                output: logs.output.created,
            },
            refused: self.candidates.refused,
        })
    }
}

/// Sequence of the newest frame that announces a checkpoint.
fn announced_at(last: &LastFrame) -> Option<u64> {
    let here = last.frame.checkpoints.is_some().then_some(last.seq);
    here.or(last.frame.announced_at)
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
    pub(super) fn published(self, published: Result<u64, PublishError>) -> Result<Self, Ended> {
        match published {
            Ok(seq) => Ok(Self { seq, ..self }),
            Err(PublishError::Fenced { .. }) => Err(Ended::Fenced),
            Err(
                error @ (PublishError::TooLarge { .. }
                | PublishError::Unavailable(_)
                | PublishError::Full(_)),
            ) => Err(Ended::failed(error)),
        }
    }

    /// The rows may have moved since the cursor was read, but not on to another log or beginning.
    pub(super) fn hydrate(&self, source: Source, logs: &Logs) -> Result<Hydration, Ended> {
        let cursor = source.cursor();
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
        Hydration::new(source, origin, passed.output_from)
            .map_err(|ended| ended.context_if_halted("reading the rows"))
    }
}
