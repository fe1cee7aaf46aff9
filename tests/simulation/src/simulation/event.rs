//! Events of the simulation, which the event queue orders by virtual time.

use std::rc::Rc;

use nixfleet_agent::core::Input;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::OwnerHeartbeat;
use nixfleet_proto::{ClosureHash, RolloutId};

use crate::addressing::{Caller, HostId, Incarnation, ProcessId};
use crate::gateway_messages::{GatewayRequest, GatewayResponse};
use crate::model::lease_bucket::LeaseKey;
use crate::model::{ServerReply, ServerRequest};

/// Something that happens.
#[derive(Debug)]
pub enum SimulationEvent {
    /// A call reaches its server.
    Arrive(Caller, Rc<ServerRequest>),
    /// An answer reaches its caller.
    Replied(Caller, ServerReply),
    /// The caller stops waiting, or a timer it set is due.
    Expired(Caller),
    /// A heartbeat reaches the owner of a partition.
    Heartbeat(Incarnation, Partition, Box<OwnerHeartbeat>, Caller),
    /// A request reaches a gateway.
    Request(ProcessId, GatewayRequest),
    /// The time to live of a lease is over, if it still has this revision.
    LeaseOver(LeaseKey, u64),
    /// Something at a host.
    Host(HostId, SimulatedHostEvent),
    /// A process starts.
    Start(ProcessId),
    /// A process dies, if it still is in this life.
    Kill(Incarnation),
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
    Switched(u32, RolloutId, ClosureHash),
    /// The machine finished a rollback.
    RolledBack(u32, RolloutId, ClosureHash),
    /// An answer arrives.
    Answered(u32, u64, GatewayResponse),
    /// The agent stops waiting for an answer.
    Expired(u32, u64),
    /// The pause before the next long-poll is over.
    Poll(u32),
}
