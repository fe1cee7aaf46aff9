//! Kinds of faults.

use std::fmt;
use std::time::Duration;

use chrono::TimeDelta;
use nixfleet_harness::Service;

/// The first gateway steps ahead, the second one back.
pub const CLOCK_STEP: TimeDelta = TimeDelta::minutes(15);

/// Processes that a fault affects together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// One process of every service, as on a node that fails.
    Node,
    /// One process of this service.
    One(Service),
}

/// A server of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// nats-server.
    Nats,
    /// Postgres.
    Postgres,
}

/// How a connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionFailure {
    /// Open connections end, and new ones end at once.
    Cut,
    /// Connections stay open and transfer nothing.
    Stall,
    /// Requests pass, replies are held.
    HoldReplies,
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9`, restarted later.
    Kill(Target),
    /// SIGTERM, restarted later.
    Stop(Target),
    /// SIGSTOP for longer than the lease TTL, then SIGCONT.
    Pause(Target),
    /// `kill -9` of nats-server.
    KillNats,
    /// `kill -9` of the postmaster.
    KillPostgres,
    /// Immediate shutdown of Postgres.
    QuitPostgres,
    /// The input logs are at their byte limit.
    FullInput,
    /// The output logs are at their byte limit.
    FullOutput,
    /// The disk of nats-server takes no more bytes.
    FullDisk,
    /// Every reply of Postgres is delayed.
    SlowPostgres,
    /// The clock of a gateway for agents steps by [`CLOCK_STEP`].
    StepClock,
    /// Connections to a server fail.
    BreakConnection(Server, ConnectionFailure),
}

/// Processes whose connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultScope {
    /// Every service.
    All,
    /// The processes with this number.
    Node,
}

/// A scheduled fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Kind of the fault.
    pub kind: Kind,
    /// 0 or 1: the busier process or the other one, the node that is cut off or whose clock steps, or the severity.
    pub number: usize,
    /// Processes that are affected, for faults of a connection.
    pub scope: FaultScope,
    /// Time until the fault is repaired.
    pub duration: Duration,
}

impl Kind {
    /// The kinds that every run has.
    pub fn essential() -> Vec<Self> {
        use ConnectionFailure::{Cut, Stall};
        vec![
            Self::Kill(Target::Node),
            Self::Stop(Target::Node),
            Self::Pause(Target::Node),
            Self::KillNats,
            Self::KillPostgres,
            Self::QuitPostgres,
            Self::FullInput,
            Self::FullDisk,
            Self::SlowPostgres,
            Self::StepClock,
            Self::BreakConnection(Server::Nats, Cut),
            Self::BreakConnection(Server::Nats, Stall),
            Self::BreakConnection(Server::Postgres, Cut),
            Self::BreakConnection(Server::Postgres, Stall),
        ]
    }

    /// All kinds, those of single services included.
    pub fn all() -> Vec<Self> {
        let mut kinds = Self::essential();
        for service in Service::ALL {
            kinds.push(Self::Kill(Target::One(service)));
            kinds.push(Self::Stop(Target::One(service)));
            kinds.push(Self::Pause(Target::One(service)));
        }
        kinds.push(Self::FullOutput);
        kinds.push(Self::BreakConnection(
            Server::Nats,
            ConnectionFailure::HoldReplies,
        ));
        kinds.push(Self::BreakConnection(
            Server::Postgres,
            ConnectionFailure::HoldReplies,
        ));
        kinds
    }

    /// True for faults of processes of the services.
    pub fn is_process(self) -> bool {
        match self {
            Self::Kill(_) | Self::Stop(_) | Self::Pause(_) => true,
            Self::KillNats
            | Self::KillPostgres
            | Self::QuitPostgres
            | Self::FullInput
            | Self::FullOutput
            | Self::FullDisk
            | Self::SlowPostgres
            | Self::StepClock
            | Self::BreakConnection(..) => false,
        }
    }

    /// True for faults that may be injected while a process is down, because they do not need that process.
    pub fn may_be_second(self) -> bool {
        match self {
            Self::KillNats
            | Self::KillPostgres
            | Self::QuitPostgres
            | Self::BreakConnection(..) => true,
            Self::Kill(_)
            | Self::Stop(_)
            | Self::Pause(_)
            | Self::FullInput
            | Self::FullOutput
            | Self::FullDisk
            | Self::SlowPostgres
            | Self::StepClock => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::One(service) => service.fmt(f),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nats => "nats",
            Self::Postgres => "postgres",
        })
    }
}

impl fmt::Display for ConnectionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "cut",
            Self::Stall => "stall",
            Self::HoldReplies => "deafen",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(target) => write!(f, "kill {target}"),
            Self::Stop(target) => write!(f, "stop {target}"),
            Self::Pause(target) => write!(f, "pause {target}"),
            Self::KillNats => f.write_str("kill nats"),
            Self::KillPostgres => f.write_str("kill postgres"),
            Self::QuitPostgres => f.write_str("quit postgres"),
            Self::FullInput => f.write_str("full input log"),
            Self::FullOutput => f.write_str("full output log"),
            Self::FullDisk => f.write_str("full disk"),
            Self::SlowPostgres => f.write_str("slow postgres"),
            Self::StepClock => f.write_str("step clock"),
            Self::BreakConnection(server, failure) => write!(f, "{failure} {server}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        match (self.kind, self.scope) {
            (Kind::Kill(_) | Kind::Stop(_) | Kind::Pause(_) | Kind::StepClock, _)
            | (Kind::BreakConnection(..), FaultScope::Node) => write!(f, " {}", self.number)?,
            (
                Kind::KillNats
                | Kind::KillPostgres
                | Kind::QuitPostgres
                | Kind::FullInput
                | Kind::FullOutput
                | Kind::FullDisk
                | Kind::SlowPostgres
                | Kind::BreakConnection(..),
                _,
            ) => {}
        }
        write!(f, " for {:.1} s", self.duration.as_secs_f64())
    }
}
