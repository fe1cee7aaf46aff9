//! What the handlers share.

use std::sync::Arc;

use nixfleet_http::{Access, Backends, Releases};
use nixfleet_service::CancellationToken;

use crate::config::Config;
use crate::dispatch::DispatchDelivery;
use crate::log_capacity::LogCapacity;

/// Everything a request may need.
pub struct App {
    /// The configuration.
    pub config: Arc<Config>,
    /// The checks that every request passes.
    pub access: Arc<Access>,
    /// Bus, input log and database.
    pub backends: Backends,
    /// Verified artifacts.
    pub releases: Releases,
    /// Queued dispatches and the requests that wait for them.
    pub dispatches: DispatchDelivery,
    /// Capacity of the logs.
    pub log_capacity: LogCapacity,
    /// Cancelled when the process stops.
    pub shutdown: CancellationToken,
}
