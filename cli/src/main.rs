//! `nixfleet`: what operators and CI type.
//!
//! Decides nothing itself: `nixfleet_trust` builds and verifies artifacts, `nixfleet_core` and
//! `nixfleet_plan` contain the state machines, and online commands query console over mutual TLS; only
//! `nixfleet db` connects to the database and is meant for its administrator. Start reading at [`Command`];
//! each command is a file under `commands`.

mod api_responses;
mod atomic_files;
mod client;
mod command_error;
mod commands;
mod contexts;
mod stdout;
mod table;
mod time;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::command_error::CommandError;

/// Releases NixOS fleets and shows the state of their rollouts.
#[derive(Debug, Parser)]
#[command(
    name = "nixfleet",
    version,
    after_help = "Exit codes: 0 done; 1 refused, or the answer is no; 2 the arguments or a file are \
                  at fault; 3 the server cannot be reached or cannot answer now.\n\
                  Waves are counted from 0, times are UTC."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(commands::keygen::Arguments),
    Release(commands::release::Arguments),
    Certs(commands::certs::Arguments),
    Context(commands::context::Arguments),
    Status(commands::status::Arguments),
    Cluster(commands::cluster::Arguments),
    Rollouts(commands::list_rollouts::Arguments),
    Hosts(commands::list_hosts::Arguments),
    Events(commands::events::Arguments),
    Explain(commands::explain::Arguments),
    Deferrals(commands::deferrals::Arguments),
    Clear(commands::clear_halt::Arguments),
    Unquarantine(commands::unquarantine::Arguments),
    Verify(commands::verify::Arguments),
    Revoke(commands::revoke::Arguments),
    Bus(commands::bus::Arguments),
    Db(commands::db::Arguments),
    Debug(commands::debug_pure_cores::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // A closed pipe ends the output early: `nixfleet hosts | head` is no error.
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Keygen(arguments) => commands::keygen::run(&arguments),
        Command::Release(arguments) => commands::release::run(&arguments),
        Command::Certs(arguments) => commands::certs::run(&arguments),
        Command::Context(arguments) => commands::context::run(&arguments),
        Command::Status(arguments) => commands::status::run(&arguments),
        Command::Cluster(arguments) => commands::cluster::run(&arguments),
        Command::Rollouts(arguments) => commands::list_rollouts::run(&arguments),
        Command::Hosts(arguments) => commands::list_hosts::run(&arguments),
        Command::Events(arguments) => commands::events::run(&arguments),
        Command::Explain(arguments) => commands::explain::run(&arguments),
        Command::Deferrals(arguments) => commands::deferrals::run(&arguments),
        Command::Clear(arguments) => commands::clear_halt::run(&arguments),
        Command::Unquarantine(arguments) => commands::unquarantine::run(&arguments),
        Command::Verify(arguments) => commands::verify::run(&arguments),
        Command::Revoke(arguments) => commands::revoke::run(&arguments),
        Command::Bus(arguments) => commands::bus::run(&arguments),
        Command::Db(arguments) => commands::db::run(&arguments),
        Command::Debug(arguments) => commands::debug_pure_cores::run(&arguments),
    }
}
