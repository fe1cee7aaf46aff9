//! The planner: turns state, manifests and time into actions, and appends them to the input logs.
//!
//! One instance leads, the others stand by. Decides nothing itself: `nixfleet-plan` does; folds
//! nothing: it follows the output logs. Writes no table. Start reading at `run.rs` (leading and
//! standing by), then `term.rs` (one leadership), `turn.rs` (one plan) and the library beside this
//! program, which is the leader as a plain value.

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod config;
mod follow;
mod load;
mod measure;
mod pins;
mod releases;
mod run;
mod source;
mod term;
mod turn;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "planner",
        version: env!("CARGO_PKG_VERSION"),
        about: "Opens rollouts, moves waves and dispatches hosts, as gates and time allow.",
    };
    nixfleet_service::run(info, run::run)
}
