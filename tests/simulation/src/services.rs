//! The processes of the services: the real cores, with a driver in place of each shell.

pub mod applier;
pub mod dispatch_queue;
pub mod eventlog;
pub mod ingest;
pub mod input_publisher;
pub mod lease_keys;
pub mod leases;
pub mod log_space;
pub mod output_publish;
pub mod planner;
pub mod reader;
pub mod reducer;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::OwnerHeartbeat;

use crate::addressing::{Caller, Incarnation, Route, Service};
use crate::gateway_messages::GatewayRequest;
use crate::simulated_servers::CallResult;
use crate::simulation::environment::Environment;
use applier::Applier;
use eventlog::Eventlog;
use ingest::Ingest;
use planner::Planner;
use reducer::Reducer;

/// A running process.
#[derive(Debug)]
pub enum ServiceProcess {
    /// A gateway.
    Ingest(Box<Ingest>),
    /// A reducer.
    Reducer(Box<Reducer>),
    /// An applier.
    Applier(Box<Applier>),
    /// A planner.
    Planner(Box<Planner>),
    /// An eventlog.
    Eventlog(Box<Eventlog>),
}

impl ServiceProcess {
    /// Starts a process.
    pub fn start(service: Service, me: Incarnation, env: &mut Environment) -> Option<Self> {
        match service {
            Service::Ingest => Some(Self::Ingest(Box::new(Ingest::start(me, env)))),
            Service::Planner => Some(Self::Planner(Box::new(Planner::start(me, env)))),
            Service::Reducer => Some(Self::Reducer(Box::new(Reducer::start(me, env)))),
            Service::Applier => Some(Self::Applier(Box::new(Applier::start(me, env)))),
            Service::Eventlog => Some(Self::Eventlog(Box::new(Eventlog::start(me, env)))),
        }
    }

    /// Processes a reply, a timeout or a timer.
    pub fn take(&mut self, route: Route, answer: CallResult, env: &mut Environment) {
        match self {
            Self::Ingest(ingest) => ingest.take(route, answer, env),
            Self::Planner(planner) => planner.take(route, answer, env),
            Self::Reducer(reducer) => reducer.take(route, answer, env),
            Self::Applier(applier) => applier.take(route, answer, env),
            Self::Eventlog(eventlog) => eventlog.take(route, answer, env),
        }
    }

    /// Processes a request of an agent or an operator.
    pub fn request(&mut self, request: GatewayRequest, env: &mut Environment) {
        match self {
            Self::Ingest(ingest) => ingest.request(request, env),
            Self::Planner(_) | Self::Reducer(_) | Self::Applier(_) | Self::Eventlog(_) => {}
        }
    }

    /// Processes a heartbeat that a gateway forwarded.
    pub fn heartbeat(
        &mut self,
        partition: Partition,
        heartbeat: OwnerHeartbeat,
        asked: Caller,
        env: &mut Environment,
    ) {
        match self {
            Self::Reducer(reducer) => reducer.heartbeat(partition, heartbeat, asked, env),
            Self::Ingest(_) | Self::Planner(_) | Self::Applier(_) | Self::Eventlog(_) => {}
        }
    }

    /// The leases it takes part in.
    pub fn leases(&self) -> Option<&leases::Leases> {
        match self {
            Self::Ingest(_) => None,
            Self::Planner(planner) => Some(planner.leases()),
            Self::Reducer(reducer) => Some(reducer.leases()),
            Self::Applier(applier) => Some(applier.leases()),
            Self::Eventlog(eventlog) => Some(eventlog.leases()),
        }
    }

    /// Stops the process in an orderly way; true when it has no work left.
    pub fn stop(&mut self, env: &mut Environment) -> bool {
        match self {
            Self::Ingest(ingest) => ingest.stop(env),
            Self::Planner(planner) => planner.stop(env),
            Self::Reducer(reducer) => reducer.stop(env),
            Self::Applier(applier) => applier.stop(env),
            Self::Eventlog(eventlog) => eventlog.stop(env),
        }
    }
}
