//! Errors of replaying an archive.

use nixfleet_core::partition::ApplyOutcomeError;
use nixfleet_proto::snapshot::OriginConflict;
use nixfleet_proto::{InputMark, Position};

/// The archive cannot be replayed further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Frames are missing.
    #[error(
        "the archive lacks frames before output frame {out_seq}; restore the database from a backup \
         that has them"
    )]
    Gap {
        /// The first frame after the gap.
        out_seq: u64,
        /// Last input covered before the gap.
        covered: Option<InputMark>,
        /// First input of the frame after the gap.
        next: Option<Position>,
    },
    /// The owner rebuilt its state from later frames: the replay must begin with those.
    #[error("{0}")]
    OriginConflict(OriginConflict),
    /// An outcome does not fit the replayed state.
    #[error("output frame {out_seq} does not fit the frames before it: {fault}")]
    Outcome {
        /// The frame.
        out_seq: u64,
        /// The fault.
        fault: ApplyOutcomeError,
    },
}
