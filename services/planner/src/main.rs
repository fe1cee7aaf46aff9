//! The planner: derives actions from state, manifests and time, and appends them to the input logs.
//!
//! One instance leads, the others stand by. `nixfleet-plan` decides; this service follows the
//! output logs without folding, and writes no table. Start reading at `run.rs` (leading and
//! standing by), then `leadership_loop.rs` (one leadership) and `action_appender.rs` (one plan). The library of
//! this package is the leader without IO.

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod action_appender;
mod config;
mod held_partitions;
mod leadership_loop;
mod releases;
mod run;
mod telemetry;
mod view;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "planner",
        version: env!("CARGO_PKG_VERSION"),
        about: "Opens rollouts, moves waves and dispatches hosts, as gates and time allow.",
    };
    nixfleet_service::run(info, run::run)
}
