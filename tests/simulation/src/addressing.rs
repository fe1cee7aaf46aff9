//! Who calls and who is called: services, processes, hosts, and the parts of a process.

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
    /// Owns partitions.
    Reducer,
    /// Writes rows.
    Applier,
    /// Plans.
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

/// A process in one of its lives: what is meant for an earlier life never reaches a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// The process.
    pub id: ProcessId,
    /// Counts its starts.
    pub life: u32,
}

/// The part of a process that an answer or a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// The publisher of a partition's input log.
    InputPublisher(Partition),
    /// The reader of a partition's log.
    Reader(Partition),
    /// The work on a partition.
    Work(Partition),
    /// The other work on a partition: recoveries of a reducer.
    LogSpace(Partition),
    /// The lease core.
    Lease,
    /// The process as a whole.
    Process,
}

/// Where the answer to a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// Who asked.
    pub process: Incarnation,
    /// Which part of it.
    pub route: Route,
    /// What it knows the call by.
    pub call: u64,
}
