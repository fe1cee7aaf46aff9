//! Source of the state: the rows or, without rows, the newest usable checkpoint.

use std::collections::VecDeque;

use anyhow::anyhow;
use nixfleet_bus::LastFrame;
use nixfleet_checkpoint::Checkpoint;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};
use nixfleet_proto::{CheckpointRef, Checkpoints, Timestamp, mutation_testing};

use super::log_check::PartitionLogs;
use crate::ownership::ownership_end::OwnershipEnd;

/// Location of the announcement of the newest checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Announcement {
    /// In the last frame.
    Here(Checkpoints),
    /// In the frame at this sequence.
    At(u64),
}

impl Announcement {
    /// The location according to the last frame; absent when no checkpoint was announced.
    pub fn of(last: Option<&LastFrame>) -> Option<Self> {
        let frame = &last?.frame;
        let here = frame.checkpoints.clone().map(Self::Here);
        here.or(frame.announced_at.map(Self::At))
    }
}

/// Announced checkpoints, the newest first.
#[derive(Debug, Default)]
pub(super) struct CheckpointCandidates {
    untried: VecDeque<CheckpointRef>,
    /// Reasons why newer candidates cannot be used.
    pub refused: Vec<String>,
}

impl CheckpointCandidates {
    /// The candidates of an announcement.
    pub fn of(announced: &Checkpoints) -> Self {
        Self {
            untried: announced.newest_first().cloned().collect(),
            refused: Vec::new(),
        }
    }

    /// The candidate to try.
    pub fn current(&self) -> Option<&CheckpointRef> {
        self.untried.front()
    }

    /// Moves to the next candidate, as the current one cannot be used.
    pub fn refuse(&mut self, fault: impl std::fmt::Display) {
        if let Some(refused) = self.untried.pop_front() {
            self.refused
                .push(format!("checkpoint {}: {fault}", refused.hash));
        }
    }

    /// Checks that the state can be built: from a complete log, or no candidate was refused.
    pub fn check_log_is_complete(&self, logs: &PartitionLogs) -> Result<(), OwnershipEnd> {
        if self.refused.is_empty() || logs.output.first_seq <= 1 {
            return Ok(());
        }
        Err(OwnershipEnd::Halted(anyhow!(
            "the database has no rows of the partition, its log was trimmed, and no checkpoint can be \
             used ({}): restore a backup of the database, or empty the store of NATS as well, so that \
             hosts and releases are reported again",
            self.refused.join("; ")
        )))
    }
}

/// A state restored from a checkpoint.
#[derive(Debug)]
pub(super) struct RestoredCheckpoint {
    pub state: PartitionState,
    pub cursor: Cursor,
    created: (Timestamp, Timestamp),
}

impl RestoredCheckpoint {
    /// Restores the state and compares its hash with the one its owner computed.
    pub fn restore(checkpoint: Checkpoint) -> Result<Self, String> {
        let Checkpoint {
            rows,
            output_created,
            state_hash,
        } = checkpoint;
        let cursor = rows.cursor.clone().ok_or("it has no cursor")?;
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

    /// Checks that these logs continue the checkpoint.
    pub fn check(&self, logs: &PartitionLogs) -> Result<(), String> {
        if self.created != (logs.input.created, logs.output.created) {
            return Err("it belongs to streams that were created at other times".to_owned());
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

#[derive(Debug)]
pub(super) enum StateSource {
    Rows(PartitionSnapshot),
    Checkpoint(RestoredCheckpoint),
}

impl StateSource {
    pub fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::Rows(rows) => rows.cursor.as_ref(),
            Self::Checkpoint(base) => Some(&base.cursor),
        }
    }
}
