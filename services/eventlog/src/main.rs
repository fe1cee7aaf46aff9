//! The archive: every message of every stream becomes rows of `event_log`, each once.
//!
//! Reads streams and writes the archive with its own cursors; decides nothing, changes no domain
//! table, publishes nothing. Start reading at `run.rs` (leases), then `archive/stream_archiver.rs`
//! (one stream), `archive_writer.rs` (one batch), `archive/message_rows.rs` (the rows of a message) and
//! `log_trimmer.rs`.

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod archive;
mod archive_writer;
mod config;
mod log_trimmer;
mod run;
mod stream;
mod stream_layout;
mod task_context;
mod telemetry;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "eventlog",
        version: env!("CARGO_PKG_VERSION"),
        about: "Archives every message of every stream in Postgres.",
    };
    nixfleet_service::run(info, run::run)
}
