//! What the handlers share.

use std::sync::Arc;

use nixfleet_http::{Access, Backends, Releases};
use nixfleet_service::CancellationToken;

use crate::config::Config;
use crate::dispatch::DispatchDelivery;
use crate::log_capacity::LogCapacity;

pub struct App {
    pub config: Arc<Config>,
    /// The checks that every request passes.
    pub access: Arc<Access>,
    pub backends: Backends,
    pub releases: Releases,
    pub dispatches: DispatchDelivery,
    pub log_capacity: LogCapacity,
    /// Cancelled when the process stops.
    pub shutdown: CancellationToken,
}
