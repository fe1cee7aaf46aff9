//! Requests of agents and operators to a gateway, and its responses.

use nixfleet_agent::release_check::SignedRelease;
use nixfleet_proto::wire::{Dispatch, EventRequest, HeartbeatRequest, OwnerReply};
use nixfleet_proto::{OperatorCommand, RolloutId};

use crate::addressing::HostId;

/// A request to a gateway.
#[derive(Debug, Clone)]
pub struct GatewayRequest {
    /// The requester.
    pub from: Requester,
    /// The request.
    pub body: GatewayRequestBody,
}

/// The sender of a request to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requester {
    /// An agent.
    Agent(AgentRequest),
    /// The operator, who does not wait.
    Operator,
}

/// A request of an agent, as its host knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentRequest {
    /// The host.
    pub host: HostId,
    /// The life of the agent.
    pub life: u32,
    /// Counts the requests of the host.
    pub number: u64,
}

/// The body of a request.
#[derive(Debug, Clone)]
pub enum GatewayRequestBody {
    /// `POST /v1/agent/events`, of one rollout.
    Events(Vec<EventRequest>),
    /// `POST /v1/agent/heartbeat`
    Heartbeat(HeartbeatRequest),
    /// `GET /v1/agent/dispatch`
    Poll,
    /// `GET` of the artifacts of a rollout.
    Artifacts(RolloutId),
    /// A command of an operator.
    Command(OperatorCommand),
}

/// The response of a gateway.
#[derive(Debug, Clone)]
pub enum GatewayResponse {
    /// 204, or 200 with a result for each event: so many of the first events are in the log.
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
