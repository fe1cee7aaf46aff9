//! What the handlers share.

use std::sync::Arc;

use nixfleet_http::{Access, Backends, Releases};
use tokio::sync::Semaphore;

use crate::config::Config;

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
    /// Room for one pushed release at a time: verifying one is work.
    pub pushing: Arc<Semaphore>,
}
