//! Events of the simulation, which the event queue orders by virtual time.

use std::rc::Rc;

use nixfleet_agent::core::Input;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::OwnerHeartbeat;
use nixfleet_proto::{ClosureHash, RolloutId};

use crate::addressing::{Caller, HostId, Incarnation, ProcessId};
use crate::gateway_messages::{AgentRequest, GatewayRequest, GatewayResponse};
use crate::simulated_servers::lease_bucket::LeaseKey;
use crate::simulated_servers::{ServerReply, ServerRequest};

/// An event of the simulation.
#[derive(Debug)]
pub enum SimulationEvent {
    /// A call reaches its server.
    CallArrives(Caller, Rc<ServerRequest>),
    /// A reply reaches its caller.
    ReplyArrives(Caller, ServerReply),
    /// A call times out, or a timer expires.
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
    /// The time to live of a lease is over, unless it was written again since this revision.
    LeaseExpires(LeaseKey, u64),
    /// An event of a host.
    Host(HostId, SimulatedHostEvent),
    /// A process starts.
    StartProcess(ProcessId),
    /// A process crashes, unless it was restarted since.
    KillProcess(Incarnation),
    /// A process is asked to stop.
    StopProcess(ProcessId),
    /// A fault of the schedule begins.
    FaultBegins(usize),
    /// A fault of the schedule ends.
    FaultEnds(usize),
    /// A release is published.
    PublishRelease(usize),
    /// An operator sends commands for what is halted or quarantined.
    OperatorCommands,
    /// The run checks whether its phase is over.
    CheckProgress,
}

/// An event of a host. Numbers are lives of the agent.
#[derive(Debug)]
pub enum SimulatedHostEvent {
    /// The agent starts.
    Start {
        /// A staged closure becomes the running one.
        reboot: bool,
    },
    /// The machine reboots.
    Reboot,
    /// A deadline of the agent is reached.
    Tick(u32),
    /// An input for the agent core.
    Input(u32, Box<Input>),
    /// The machine finished a switch, whether or not the agent still runs.
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
