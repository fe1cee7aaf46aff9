//! Identifiers of services, processes, hosts, and the parts of a process.

use nixfleet_proto::subject::Partition;

/// Index of a process.
pub type ProcessId = usize;
/// Index of a host.
pub type HostId = usize;

/// The services that are simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The gateway.
    Ingest,
    /// Folds partitions.
    Reducer,
    /// Writes rows.
    Applier,
    /// Plans rollouts.
    Planner,
    /// Archives and trims logs.
    Eventlog,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 5] = [
        Self::Ingest,
        Self::Reducer,
        Self::Applier,
        Self::Planner,
        Self::Eventlog,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Reducer => "reducer",
            Self::Applier => "applier",
            Self::Planner => "planner",
            Self::Eventlog => "eventlog",
        }
    }
}

/// A process and its life: events for an earlier life never reach a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// The process.
    pub id: ProcessId,
    /// Counts its starts.
    pub life: u32,
}

/// The part of a process that a reply or a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// The publisher of a partition's input log.
    InputPublisher(Partition),
    /// The reader of a partition's log.
    Reader(Partition),
    /// The work on a partition.
    Work(Partition),
    /// The readings of the free space in a partition's logs.
    LogSpace(Partition),
    /// The lease core.
    Lease,
    /// The process as a whole.
    Process,
}

/// Where the reply to a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// The process.
    pub process: Incarnation,
    /// Its part.
    pub route: Route,
    /// The number of the call.
    pub call: u64,
}
