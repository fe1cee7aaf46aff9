//! Why an archive cannot be followed.

use std::error::Error;
use std::fmt;

use nixfleet_core::partition::ApplyOutcomeError;
use nixfleet_proto::snapshot::OriginConflict;
use nixfleet_proto::{InputMark, Position};

/// An archive that cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayError {
    /// Frames are missing in the middle.
    Gap {
        /// The frame behind the hole.
        out_seq: u64,
        /// Last input covered before it.
        covered: Option<InputMark>,
        /// Where the frame behind it goes on.
        next: Option<Position>,
    },
    /// The owner's state was rebuilt from later frames only: the replay must begin with those.
    OriginConflict(OriginConflict),
    /// An outcome does not fit the state.
    Outcome {
        /// The frame.
        out_seq: u64,
        /// What does not fit.
        fault: ApplyOutcomeError,
    },
}

impl Error for ReplayError {}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { out_seq, .. } => write!(
                f,
                "the archive has a hole before output frame {out_seq}: what happened in it is not \
                 known; restore the database from a backup that has it"
            ),
            Self::OriginConflict(fault) => fault.fmt(f),
            Self::Outcome { out_seq, fault } => {
                write!(
                    f,
                    "output frame {out_seq} does not fit what is before it: {fault}"
                )
            }
        }
    }
}
