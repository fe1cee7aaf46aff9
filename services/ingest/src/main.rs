//! The gateway: what agents report goes into the input log, what people ask is answered.
//!
//! Authenticates every client by certificate, validates and bounds what it sends, and answers 2xx
//! only when the entry is durable. Decides nothing: never folds, never plans, writes no table.
//! Start reading at `gateway.rs` and `routes.rs` (what it serves), then `access.rs` (what every request passes).

use std::process::ExitCode;

use mimalloc::MiMalloc;
use nixfleet_service::ServiceInfo;

mod access;
mod answers;
mod board;
mod body;
mod bounds;
mod clients;
mod clock;
mod config;
mod connections;
mod dispatches;
mod error;
mod events;
mod follow;
mod gateway;
mod identity;
mod log_room;
mod paths;
mod patience;
mod peer;
mod protocol;
mod push;
mod rates;
mod releases;
mod revocations;
mod routes;
mod run;
mod state;
mod tls;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "ingest",
        version: env!("CARGO_PKG_VERSION"),
        about: "Takes what agents report, answers what they and operators ask.",
    };
    nixfleet_service::run(info, run::run)
}
