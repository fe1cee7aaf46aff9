//! The owner of partitions: folds input logs into state and publishes what follows, fenced.
//!
//! The only service that calls `step()`. Reads Postgres to hydrate and never writes there; reads no
//! clock for anything that ends in state. Start reading at `partition.rs` (the life of one
//! ownership), then `takeover.rs` and `owner.rs`.

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod config;
mod ended;
mod folder;
mod guard;
mod heartbeat;
mod liveness;
mod manifests;
mod owner;
mod partition;
mod report;
mod run;
mod takeover;
mod turn;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "reducer",
        version: env!("CARGO_PKG_VERSION"),
        about: "Folds the input logs of partitions into state and publishes the outcomes.",
    };
    nixfleet_service::run(info, run::run)
}
