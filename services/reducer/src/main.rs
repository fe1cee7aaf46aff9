//! The owner of partitions: folds input logs into state and publishes what follows, fenced.
//!
//! The only service that calls `step()`. Reads Postgres to hydrate and never writes there; reads no
//! clock for anything that ends in state. Start reading at `worker.rs` (one partition), then
//! `worker/takeover_driver.rs` and `worker/live_loop.rs`. The library of this package decides.

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod config;
mod manifests;
mod run;
mod telemetry;
mod worker;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "reducer",
        version: env!("CARGO_PKG_VERSION"),
        about: "Folds the input logs of partitions into state and publishes the outcomes.",
    };
    nixfleet_service::run(info, run::run)
}
