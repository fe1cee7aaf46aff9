//! The applier: the only writer of the domain tables.
//!
//! Follows the output log of each partition it owns and writes what the outcomes say, one row per
//! record and turn, with the cursor in the same transaction. Computes no domain state: an outcome
//! carries the next records. Start reading at `partition.rs` (the life of one partition), then
//! `turn.rs` (one batch) and the library beside this program (what a turn writes).

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod config;
mod database;
mod follow;
mod liveness;
mod partition;
mod pinned;
mod restore;
mod retry;
mod run;
mod turn;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "applier",
        version: env!("CARGO_PKG_VERSION"),
        about: "Writes what the reducers decided into Postgres, exactly once.",
    };
    nixfleet_service::run(info, run::run)
}
