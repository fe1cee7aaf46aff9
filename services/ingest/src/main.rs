//! The gateway for agents: appends their reports to the input log and answers their questions.
//!
//! Authenticates every host by certificate, validates and bounds what it sends, and answers 2xx only when
//! the entry is durable. Decides nothing: never folds, never plans, writes no table. Knows no people: those
//! ask `console`. Start reading at `event_fast_path.rs` and `routes.rs` (what it serves).

use std::process::ExitCode;

use mimalloc::MiMalloc;
use nixfleet_service::ServiceInfo;

mod admission;
mod app_state;
mod config;
mod dispatch;
mod event_fast_path;
mod event_log;
mod events;
mod followers;
mod log_capacity;
mod routes;
mod run;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "ingest",
        version: env!("CARGO_PKG_VERSION"),
        about: "Takes the reports of agents and answers their questions.",
    };
    nixfleet_service::run(info, run::run)
}
