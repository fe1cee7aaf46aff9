//! The gateway for people and pipelines: answers their questions from the tables, takes their commands and
//! releases into the logs.
//!
//! Authenticates everyone by certificate and checks the role for each route. Decides nothing: a command is an
//! entry, the fold decides. Knows no agents: those report to `ingest`. Start reading at `routes.rs` (what it
//! serves, for whom).

use std::process::ExitCode;

use nixfleet_service::ServiceInfo;

mod app_state;
mod config;
mod release_push;
mod routes;
mod run;

fn main() -> ExitCode {
    let info = ServiceInfo {
        name: "console",
        version: env!("CARGO_PKG_VERSION"),
        about: "Answers people and pipelines, takes their commands and releases.",
    };
    nixfleet_service::run(info, run::run)
}
