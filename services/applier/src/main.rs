//! The applier: the only writer of the domain tables.
//!
//! Follows the output log of each partition it owns and writes what the outcomes say, one row per
//! record and turn, with the cursor in the same transaction. Computes no domain state: an outcome
//! carries the next records. Start reading at `worker.rs` (one partition), then
//! `turn_writer.rs` (one batch). The library of this package builds the turns.

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod config;
mod last_seen;
mod run;
mod schema;
mod turn_writer;
mod worker;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "applier",
        version: env!("CARGO_PKG_VERSION"),
        about: "Writes the outcomes of reducers to Postgres, exactly once.",
    };
    nixfleet_service::run(info, run::run)
}
