//! Why an archive cannot be followed.

use std::error::Error;
use std::fmt;

use nixfleet_core::partition::AbsorbError;
use nixfleet_proto::snapshot::KnowsMore;
use nixfleet_proto::{InputMark, Position};

/// An archive that cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// Frames are missing in the middle.
    Hole {
        /// The frame behind the hole.
        out_seq: u64,
        /// Last input covered before it.
        covered: Option<InputMark>,
        /// Where the frame behind it goes on.
        next: Option<Position>,
    },
    /// The owner's state was rebuilt from later frames only: the replay must begin with those.
    KnowsMore(KnowsMore),
    /// An outcome does not fit the state.
    Absorb {
        /// The frame.
        out_seq: u64,
        /// What does not fit.
        fault: AbsorbError,
    },
}

impl Error for Unreadable {}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole { out_seq, .. } => write!(
                f,
                "the archive has a hole before output frame {out_seq}: what happened in it is not \
                 known; restore the database from a backup that has it"
            ),
            Self::KnowsMore(fault) => fault.fmt(f),
            Self::Absorb { out_seq, fault } => {
                write!(
                    f,
                    "output frame {out_seq} does not fit what is before it: {fault}"
                )
            }
        }
    }
}
