//! Stages on real servers and with the services' own programs: what they are measured on.
//!
//! NATS syncs every append and Postgres every commit; programs, users, schema and certificates are
//! those of production. A stage's clock is the one of the server it ends at.

pub mod applier;
mod client;
mod copy;
pub mod dispatch;
pub mod eventlog;
mod events;
pub mod gate;
mod load;
mod log;
pub mod nothing;
pub mod open;
pub mod reducer;
mod release;
mod replay;
mod unnest;
mod usage;
pub mod whole;
mod world;

use std::future::Future;

use anyhow::{Context as _, Result};

/// What all of these stages are told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Hosts of the made-up fleet.
    pub hosts: usize,
    /// How often a stage and its limit are measured.
    pub rounds: usize,
    /// How long a load is kept up.
    pub seconds: u64,
}

/// Runs a stage to its end.
///
/// # Errors
/// Its own, and when no runtime can be had.
pub fn block_on<T>(stage: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    runtime.block_on(stage)
}

/// Says on standard error what is going on.
macro_rules! say {
    ($($text:tt)*) => { eprintln!("nixfleet-bench: {}", format_args!($($text)*)) };
}
pub(crate) use say;
