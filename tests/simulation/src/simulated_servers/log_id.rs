//! The name of a log: one of the two of a partition.

use nixfleet_proto::subject::Partition;

/// The two logs of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogId {
    /// `FLEET_IN_pp`
    Input(Partition),
    /// `FLEET_OUT_pp`
    Output(Partition),
}

impl LogId {
    /// Its partition.
    pub fn partition(self) -> Partition {
        match self {
            Self::Input(partition) | Self::Output(partition) => partition,
        }
    }
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input(partition) => write!(f, "in {partition}"),
            Self::Output(partition) => write!(f, "out {partition}"),
        }
    }
}
