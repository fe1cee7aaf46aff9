//! Events of the simulation, which the event queue orders by virtual time.

use std::rc::Rc;

use nixfleet_agent::core::Input;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::OwnerHeartbeat;
use nixfleet_proto::{ClosureHash, RolloutId};

use crate::addressing::{Caller, HostId, Incarnation, ProcessId};
use crate::gateway_messages::{AgentRequest, GatewayRequest, GatewayResponse};
use crate::model::lease_bucket::LeaseKey;
use crate::model::{ServerReply, ServerRequest};

/// Something that happens.
#[derive(Debug)]
pub enum SimulationEvent {
    /// A call reaches its server.
    CallArrives(Caller, Rc<ServerRequest>),
    /// An answer reaches its caller.
    ReplyArrives(Caller, ServerReply),
    /// The caller stops waiting, or a timer it set is due.
    TimerExpires(Caller),
    /// A heartbeat reaches the owner of a partition.
    HeartbeatArrives {
        /// The owner.
        to: Incarnation,
        /// The partition.
        partition: Partition,
        /// The heartbeat.
        heartbeat: Box<OwnerHeartbeat>,
        /// The gateway's call, which the reply goes to.
        caller: Caller,
    },
    /// A request reaches a gateway.
    RequestArrives(ProcessId, GatewayRequest),
    /// The time to live of a lease is over, if it still has this revision.
    LeaseExpires(LeaseKey, u64),
    /// Something at a host.
    Host(HostId, SimulatedHostEvent),
    /// A process starts.
    StartProcess(ProcessId),
    /// A process dies, if it still is in this life.
    KillProcess(Incarnation),
    /// A process is asked to end.
    StopProcess(ProcessId),
    /// A fault of the schedule begins.
    FaultBegins(usize),
    /// A fault of the schedule ends.
    FaultEnds(usize),
    /// A release is published.
    PublishRelease(usize),
    /// An operator looks whether something waits for him.
    OperatorCommands,
    /// The run looks whether its phase is over.
    CheckProgress,
}

/// What happens at a host.
#[derive(Debug)]
pub enum SimulatedHostEvent {
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
    SwitchFinished(u32, RolloutId, ClosureHash),
    /// The machine finished a rollback.
    RollbackFinished(u32, RolloutId, ClosureHash),
    /// The response to a request arrives.
    ResponseArrives(AgentRequest, GatewayResponse),
    /// The agent stops waiting for a response.
    RequestTimesOut(AgentRequest),
    /// The pause before the next long-poll is over.
    Poll(u32),
}
