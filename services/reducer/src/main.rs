//! The owner of partitions: folds input logs into state and publishes what follows, fenced.
//!
//! The only service that calls `step()`. Reads Postgres to hydrate and never writes there; reads no
//! clock for anything that ends in state. Start reading at `partition.rs` (the life of one
//! ownership), then `acquire.rs` and `live.rs`; what they drive is the library beside this program.

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod acquire;
mod answers;
mod artifacts;
mod config;
mod layout;
mod live;
mod partition;
mod report;
mod run;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "reducer",
        version: env!("CARGO_PKG_VERSION"),
        about: "Folds the input logs of partitions into state and publishes the outcomes.",
    };
    nixfleet_service::run(info, run::run)
}
