//! The archive: every message of every stream becomes rows of `event_log`, each once.
//!
//! Reads streams and writes the archive with its own cursor; decides nothing, changes no domain
//! table, publishes nothing. Start reading at `run.rs` (who archives what), then `follow.rs` (one
//! stream), `turn.rs` (one batch) and `rows.rs` (what a message becomes).

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod artifacts;
mod base;
mod chunk;
mod config;
mod follow;
mod layout;
mod report;
mod resume;
mod rows;
mod run;
mod shared;
mod stream;
mod trim;
mod turn;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "eventlog",
        version: env!("CARGO_PKG_VERSION"),
        about: "Archives every message of every stream in Postgres.",
    };
    nixfleet_service::run(info, run::run)
}
