//! What the state is built from: the rows or, when there are none, the newest checkpoint that can be used.

use std::collections::VecDeque;

use anyhow::anyhow;
use nixfleet_bus::LastFrame;
use nixfleet_checkpoint::Checkpoint;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::{CheckpointRef, Checkpoints, Timestamp, mutation_testing};

use crate::ended::Ended;
use crate::guard::Logs;

/// Where the announcement of the newest checkpoint is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Announcement {
    /// In the last frame.
    Here(Checkpoints),
    /// In the frame at this sequence.
    At(u64),
}

impl Announcement {
    /// Where the last frame says it is; absent when no checkpoint was ever announced.
    pub fn of(last: Option<&LastFrame>) -> Option<Self> {
        let frame = &last?.frame;
        let here = frame.checkpoints.clone().map(Self::Here);
        here.or(frame.announced_at.map(Self::At))
    }
}

/// Checkpoints that were announced, the newest first.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    untried: VecDeque<CheckpointRef>,
    /// Why those before cannot be used.
    pub refused: Vec<String>,
}

impl Candidates {
    /// All that an announcement names.
    pub fn of(announced: &Checkpoints) -> Self {
        Self {
            untried: announced.newest_first().cloned().collect(),
            refused: Vec::new(),
        }
    }

    /// The one to try.
    pub fn current(&self) -> Option<&CheckpointRef> {
        self.untried.front()
    }

    /// The one to try cannot be used.
    pub fn refuse(&mut self, fault: impl std::fmt::Display) {
        if let Some(refused) = self.untried.pop_front() {
            self.refused
                .push(format!("checkpoint {}: {fault}", refused.hash));
        }
    }

    /// Without any of them only a log that goes back to its beginning gives the state.
    pub fn none_needed(&self, logs: &Logs) -> Result<(), Ended> {
        if self.refused.is_empty() || logs.output.first_seq <= 1 {
            return Ok(());
        }
        Err(Ended::Halted(anyhow!(
            "the database has no rows of the partition, its log was trimmed, and no checkpoint can be \
             used ({}): restore a backup of the database, or empty the store of NATS as well, so that \
             hosts and releases are reported again",
            self.refused.join("; ")
        )))
    }
}

/// A state that was restored from a checkpoint.
#[derive(Debug)]
pub(super) struct Base {
    pub state: PartitionState,
    pub cursor: Cursor,
    created: (Timestamp, Timestamp),
}

impl Base {
    /// Restores the state, which must be the one that its owner had.
    pub fn restore(checkpoint: Checkpoint) -> Result<Self, String> {
        let Checkpoint {
            rows,
            output_created,
            state_hash,
        } = checkpoint;
        let cursor = rows.cursor.clone().ok_or("it has no position")?;
        let state = PartitionState::restore(rows, &PinnedSet::new());
        let state = state.map_err(|fault| fault.to_string())?;
        let found = state.hash();
        if found != state_hash && !mutation_testing::is_active("checkpoint-hash-ignored") {
            return Err(format!(
                "it gives the state {found} instead of {state_hash}"
            ));
        }
        Ok(Self {
            created: (cursor.stream_created, output_created),
            state,
            cursor,
        })
    }

    /// Whether these logs go on where it ends.
    pub fn check(&self, logs: &Logs) -> Result<(), String> {
        if self.created != (logs.input.created, logs.output.created) {
            return Err("it is of streams that were created at other times".to_owned());
        }
        let (first, ends) = (logs.output.first_seq, self.cursor.out_seq);
        if ends + 1 < first {
            return Err(format!(
                "it ends at output sequence {ends}, the log begins at {first}"
            ));
        }
        Ok(())
    }
}

/// What a hydration begins with.
#[derive(Debug)]
pub(super) enum Source {
    Rows(PartitionSnapshot),
    Checkpoint(Base),
}

impl Source {
    /// Where it stands in the logs.
    pub fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::Rows(rows) => rows.cursor.as_ref(),
            Self::Checkpoint(base) => Some(&base.cursor),
        }
    }
}
