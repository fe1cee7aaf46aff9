//! What the tasks of the process share.

use std::sync::Arc;

use nixfleet_bus::Bus;
use nixfleet_service::Readiness;
use nixfleet_store::Store;

use crate::config::Config;

/// What every task needs.
pub struct Shared {
    /// Of the program.
    pub config: Arc<Config>,
    /// Where streams are read.
    pub bus: Bus,
    /// Where they are archived.
    pub store: Store,
    /// Where it is said how that goes.
    pub readiness: Readiness,
}
