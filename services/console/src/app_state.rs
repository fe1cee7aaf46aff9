//! What the handlers share.

use std::sync::Arc;

use nixfleet_http::{Access, Backends, EntryLog, Releases};
use nixfleet_trust::sign::SigningKey;
use tokio::sync::Semaphore;

use crate::config::Config;

pub struct App {
    pub config: Arc<Config>,
    /// The checks that every request passes.
    pub access: Arc<Access>,
    pub backends: Backends,
    /// Takes the commands.
    pub entries: EntryLog,
    pub releases: Releases,
    /// Signs commands.
    pub key: Option<SigningKey>,
    /// Room for one pushed release at a time: verifying one is work.
    pub pushing: Arc<Semaphore>,
}
