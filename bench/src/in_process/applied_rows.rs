//! The rows that an applier would have written for a state.

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::snapshot::{Cursor, PartitionSnapshot};

use crate::synthetic_fleet::log_start;

/// The rows that the applier would have written after the first output frame.
pub fn snapshot_of(state: &PartitionState) -> PartitionSnapshot {
    state.freeze().rows(Cursor {
        out_seq: 1,
        epoch: 1,
        ..Cursor::empty(log_start())
    })
}
