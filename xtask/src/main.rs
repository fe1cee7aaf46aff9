//! `cargo xtask`: the commands a developer needs.
//!
//! It obtains servers and calls cargo. It must never know the behaviour of the system. Start reading at
//! [`Task`].

mod cargo;
mod setup;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Sets up, checks, tests and shows NixFleet"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or download nats-server and Postgres into `.dev/`.
    Setup,
    /// Build the workspace and roll out a release to a simulated fleet.
    Demo {
        /// Options of the demo; `cargo xtask demo --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Build the workspace and inject faults into a running control plane under load.
    Chaos {
        /// Options of the run; `cargo xtask chaos --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Run the services' cores in virtual time, with faults from seeds.
    Sim {
        /// Options of the simulation; `cargo xtask sim --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Build the workspace and run all tests.
    Test {
        /// Passed on to `cargo test`: a name filter, and `--` with options of the test program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Build in release and measure stages against their limits.
    Bench {
        /// Options of the measurement; `cargo xtask bench --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Build in release and run a control plane with default settings for a long time.
    Endurance {
        /// Options of the run; `cargo xtask endurance --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Formatting, lints and the layout guard.
    Check,
}

fn main() -> ExitCode {
    let done = match arguments().task {
        Task::Setup => setup::run(),
        Task::Demo { options } => setup::run().and_then(|()| cargo::run("nixfleet-demo", &options)),
        Task::Chaos { options } => {
            setup::run().and_then(|()| cargo::run("nixfleet-chaos", &options))
        }
        Task::Sim { options } => cargo::sim(&options),
        Task::Test { options } => setup::run().and_then(|()| cargo::test(&options)),
        Task::Bench { options } => cargo::bench(&options),
        Task::Endurance { options } => setup::run().and_then(|()| cargo::endurance(&options)),
        Task::Check => cargo::check(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tasks that pass their options on.
const PROGRAMS: [&str; 5] = ["demo", "chaos", "sim", "bench", "endurance"];

/// `--help` after one of [`PROGRAMS`] belongs to that program.
fn arguments() -> Arguments {
    let mut words: Vec<_> = std::env::args_os().collect();
    let is_program = |word: &OsString| PROGRAMS.iter().any(|program| word == program);
    if words.get(1).is_some_and(is_program) {
        words.insert(2, "--".into());
    }
    Arguments::parse_from(words)
}
