//! Stages that run the service programs against real NATS and Postgres servers.
//!
//! NATS syncs every append and Postgres every commit; programs, users, schema and certificates are those of
//! production. A stage takes its times from the server that stores its output.

mod agent_events;
pub mod applier;
mod applier_baseline;
mod control_plane;
pub mod dispatch;
pub mod end_to_end;
pub mod eventlog;
pub mod flood;
pub mod gateway_baseline;
mod https_client;
pub mod ingest;
mod load_generator;
pub mod open_rollout;
mod partition_logs;
mod postgres_client;
mod process_usage;
pub mod reducer;
mod reducer_baseline;
mod release;
mod testbed;

use std::future::Future;

use anyhow::{Context as _, Result};

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub hosts: usize,
    pub rounds: usize,
    /// Duration of a load.
    pub seconds: u64,
}

/// Runs a stage to its end.
pub fn block_on<T>(stage: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    runtime.block_on(stage)
}

/// Prints a line of progress on standard error.
macro_rules! progress {
    ($($text:tt)*) => { eprintln!("nixfleet-bench: {}", format_args!($($text)*)) };
}
pub(crate) use progress;
