//! What the handlers share.

use std::sync::Arc;

use nixfleet_http::{Access, Backends, Releases};
use nixfleet_service::CancellationToken;

use crate::admission::KnownRollouts;
use crate::config::Config;
use crate::dispatch::DispatchDelivery;
use crate::event_log::EventLog;

pub struct App {
    pub config: Arc<Config>,
    /// The checks that every request passes.
    pub access: Arc<Access>,
    pub backends: Backends,
    pub releases: Releases,
    pub dispatches: DispatchDelivery,
    /// Rollouts that hosts may report about, besides those of the release.
    pub known_rollouts: KnownRollouts,
    pub log: EventLog,
    /// Cancelled when the process stops.
    pub shutdown: CancellationToken,
}
