//! Errors of replaying an archive.

use std::error::Error;
use std::fmt;

use nixfleet_core::partition::ApplyOutcomeError;
use nixfleet_proto::snapshot::OriginConflict;
use nixfleet_proto::{InputMark, Position};

/// The archive cannot be replayed further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayError {
    /// Frames are missing.
    Gap {
        /// The first frame after the gap.
        out_seq: u64,
        /// Last input covered before the gap.
        covered: Option<InputMark>,
        /// First input of the frame after the gap.
        next: Option<Position>,
    },
    /// The owner rebuilt its state from later frames: the replay must begin with those.
    OriginConflict(OriginConflict),
    /// An outcome does not fit the replayed state.
    Outcome {
        /// The frame.
        out_seq: u64,
        /// The fault.
        fault: ApplyOutcomeError,
    },
}

impl Error for ReplayError {}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { out_seq, .. } => write!(
                f,
                "the archive lacks frames before output frame {out_seq}; restore the database from a \
                 backup that has them"
            ),
            Self::OriginConflict(fault) => fault.fmt(f),
            Self::Outcome { out_seq, fault } => {
                write!(
                    f,
                    "output frame {out_seq} does not fit the frames before it: {fault}"
                )
            }
        }
    }
}
