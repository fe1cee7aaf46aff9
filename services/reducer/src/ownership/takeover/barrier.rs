//! The barrier frame, which fences older owners, and its inputs.

use anyhow::anyhow;
use nixfleet_bus::{LastFrame, PublishError};
use nixfleet_proto::snapshot::{Cursor, Origin};
use nixfleet_proto::{InputMark, OutputFrame, mutation_testing};

use super::hydration::Hydration;
use super::log_check::{self, PartitionLogs, ResumePoint};
use super::state_source::{CheckpointCandidates, RestoredCheckpoint, StateSource};
use crate::ownership::checkpoint_schedule::LogCreationTimes;
use crate::ownership::ownership_end::OwnershipEnd;

/// Inputs of a barrier, read before anything is published.
#[derive(Debug)]
pub(super) struct BarrierInputs {
    pub(super) cursor: Option<Cursor>,
    pub(super) last: Option<LastFrame>,
    pub(super) checkpoint: Option<RestoredCheckpoint>,
    pub(super) candidates: CheckpointCandidates,
}

/// A barrier frame and what the takeover continues with behind it.
#[derive(Debug)]
pub(super) struct Barrier {
    pub(super) frame: OutputFrame,
    /// The output sequence that the barrier must follow.
    pub(super) expected: u64,
    /// Sequence of the barrier; 0 until it is published.
    pub(super) seq: u64,
    /// First output sequence of the frames that the state is built from.
    pub(super) own: u64,
    /// True when the input stream was created again above the cursor.
    pub(super) replaced: bool,
    /// Restored checkpoint, for a partition without rows.
    pub(super) checkpoint: Option<RestoredCheckpoint>,
    pub(super) logs: LogCreationTimes,
    pub(super) refused: Vec<String>,
}

impl BarrierInputs {
    pub(super) fn cursor(&self) -> Option<&Cursor> {
        let checkpoint = self
            .checkpoint
            .as_ref()
            .map(|checkpoint| &checkpoint.cursor);
        self.cursor.as_ref().or(checkpoint)
    }

    /// Builds the barrier, if the logs belong to the rows: otherwise it would hide the loss.
    pub(super) fn barrier(self, logs: &PartitionLogs) -> Result<Barrier, OwnershipEnd> {
        let (cursor, last) = (self.cursor(), self.last.as_ref());
        let resume = log_check::check(cursor, last, logs).map_err(OwnershipEnd::halted)?;
        let origin = origin_of(cursor, &resume);
        let epochs = [
            cursor.map(|cursor| cursor.epoch),
            last.map(|last| last.frame.epoch),
        ];
        let epoch = epochs.into_iter().flatten().max().unwrap_or(0) + 1;
        let (last_input, last_input_id) = match last {
            Some(last) if !mutation_testing::is_active("takeover-from-cursor") => {
                (last.frame.last_input, last.frame.last_input_id.clone())
            }
            // A recreated output log covers less than the rows.
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
        // Without rows and frames the fold begins at the beginning of the log.
        let is_unknown = cursor.is_none() && last.is_none() && logs.input.first_seq > 1;
        if resume.replaced || is_unknown {
            skip_to(&mut frame, logs.input.first_seq);
        }
        Ok(Barrier {
            frame,
            expected: last.map_or(0, |last| last.seq),
            seq: 0,
            own: origin.own,
            replaced: resume.replaced,
            checkpoint: self.checkpoint,
            logs: LogCreationTimes {
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

/// Covers the lost messages before a recreated log, so that rows and owners continue in it.
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

fn origin_of(cursor: Option<&Cursor>, resume: &ResumePoint) -> Origin {
    cursor.map_or_else(
        || Origin::of_log(resume.output_from),
        |cursor| cursor.origin,
    )
}

impl Barrier {
    pub(super) fn published(
        self,
        published: Result<u64, PublishError>,
    ) -> Result<Self, OwnershipEnd> {
        match published {
            Ok(seq) => Ok(Self { seq, ..self }),
            Err(PublishError::Fenced { .. }) => Err(OwnershipEnd::Fenced),
            Err(
                error @ (PublishError::TooLarge { .. }
                | PublishError::Unavailable(_)
                | PublishError::Full(_)),
            ) => Err(OwnershipEnd::failed(error)),
        }
    }

    /// Starts hydration. The rows may have advanced, but not to another log or origin.
    pub(super) fn hydrate(
        &self,
        source: StateSource,
        logs: &PartitionLogs,
    ) -> Result<Hydration, OwnershipEnd> {
        let cursor = source.cursor();
        if cursor.is_some_and(|cursor| cursor.out_seq > self.seq) {
            // Rows of frames behind the barrier come from another owner.
            return Err(OwnershipEnd::Fenced);
        }
        let resume = log_check::check(cursor, None, logs).map_err(OwnershipEnd::halted)?;
        let origin = origin_of(cursor, &resume);
        if origin.own != self.own || (resume.replaced && !self.replaced) {
            let fault = anyhow!("the rows or the logs were replaced during the takeover");
            return Err(OwnershipEnd::Failed(fault));
        }
        Hydration::new(source, origin, resume.output_from)
            .map_err(|ended| ended.context_if_halted("reading the rows"))
    }
}
