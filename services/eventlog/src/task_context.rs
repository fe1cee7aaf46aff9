//! Clients and configuration shared by the tasks of the process.

use std::sync::Arc;

use nixfleet_bus::Bus;
use nixfleet_service::Readiness;
use nixfleet_store::Store;

use crate::config::Config;

pub struct TaskContext {
    pub config: Arc<Config>,
    pub bus: Bus,
    pub store: Store,
    pub readiness: Readiness,
}
