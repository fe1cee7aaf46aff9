//! Everything that can happen, and the messages between the parties.

use std::rc::Rc;

use nixfleet_agent::core::Input;
use nixfleet_agent::release_check::SignedRelease;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::{Dispatch, EventRequest, HeartbeatRequest, OwnerHeartbeat, OwnerReply};
use nixfleet_proto::{ClosureHash, OperatorCommand, RolloutId};

use crate::model::kv::Key;
use crate::model::{Op, Reply};

/// Index of a process.
pub type ProcessId = usize;
/// Index of a host.
pub type HostId = usize;

/// A process in one of its lives: what is meant for an earlier life never reaches a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alive {
    /// The process.
    pub id: ProcessId,
    /// Counts its starts.
    pub life: u32,
}

/// The part of a process that an answer or a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// The publisher of a partition's input log.
    Lane(Partition),
    /// The reader of a partition's log.
    Reader(Partition),
    /// The work on a partition.
    Work(Partition),
    /// The other work on a partition: recoveries of a reducer.
    Aside(Partition),
    /// The lease core.
    Lease,
    /// The process as a whole.
    Whole,
}

/// Where the answer to a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Caller {
    /// Who asked.
    pub process: Alive,
    /// Which part of it.
    pub route: Route,
    /// What it knows the call by.
    pub call: u64,
}

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A call reaches its server.
    Arrive(Caller, Rc<Op>),
    /// An answer reaches its caller.
    Replied(Caller, Reply),
    /// The caller stops waiting, or a timer it set is due.
    Expired(Caller),
    /// A heartbeat reaches the owner of a partition.
    Heartbeat(Alive, Partition, Box<OwnerHeartbeat>, Caller),
    /// A request reaches a gateway.
    Request(ProcessId, Request),
    /// The time to live of a lease is over, if it still has this revision.
    LeaseOver(Key, u64),
    /// Something at a host.
    Host(HostId, AtHost),
    /// A process starts.
    Start(ProcessId),
    /// A process dies, if it still is in this life.
    Kill(Alive),
    /// A process is asked to end.
    Stop(ProcessId),
    /// A fault of the schedule begins.
    Fault(usize),
    /// A fault of the schedule ends.
    FaultOver(usize),
    /// A release is published.
    Publish(usize),
    /// An operator looks whether something waits for him.
    Operator,
    /// The run looks whether its phase is over.
    Look,
}

/// What happens at a host.
#[derive(Debug)]
pub enum AtHost {
    /// The agent starts; the machine boots first when it was down.
    Start {
        /// A staged closure becomes the running one.
        reboot: bool,
    },
    /// The machine reboots.
    Reboot,
    /// The agent asked for this time.
    Tick(u32),
    /// Something for the core of that life.
    Input(u32, Box<Input>),
    /// The machine finished a switch, whoever still cares.
    Switched(u32, RolloutId, ClosureHash),
    /// The machine finished a rollback.
    RolledBack(u32, RolloutId, ClosureHash),
    /// An answer arrives.
    Answered(u32, u64, Answer),
    /// The agent stops waiting for an answer.
    Expired(u32, u64),
    /// The pause before the next long-poll is over.
    Poll(u32),
}

/// A request to a gateway.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who asks.
    pub from: Requester,
    /// What.
    pub body: RequestBody,
}

/// Who asks a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requester {
    /// An agent in one of its lives, and its number for the request.
    Agent(HostId, u32, u64),
    /// The operator, who does not wait.
    Operator,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum RequestBody {
    /// `POST /v1/agent/events`, of one rollout.
    Events(Vec<EventRequest>),
    /// `POST /v1/agent/heartbeat`
    Heartbeat(HeartbeatRequest),
    /// `GET /v1/agent/dispatch`
    Poll,
    /// `GET` of the artifacts of a rollout.
    Artifacts(RolloutId),
    /// A command of a person.
    Command(OperatorCommand),
}

/// What a gateway answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 204, or 200 with answers: so many of the first events are in the log.
    Stored(usize),
    /// 503 or no connection.
    Unavailable,
    /// 404.
    NotFound,
    /// 200 to a heartbeat.
    Heartbeat(Box<OwnerReply>),
    /// 200 or 204 to a long-poll.
    Dispatch(Option<Box<Dispatch>>),
    /// 200 with artifacts.
    Artifacts(Box<SignedRelease>),
}
