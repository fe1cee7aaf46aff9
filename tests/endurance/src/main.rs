//! `nixfleet-endurance`: a long run on real servers with default settings, and whether anything fills
//! up, falls behind or gets lost.
//!
//! Hosts follow a script and report over the bus, as a gateway stores what they send; everything behind
//! it is the real system. It must never help the control plane: it trims nothing and restarts nothing.
//! Start reading at [`run`] and [`driver`].
//!
//! Exit codes: 0 everything holds, 1 something does not, 2 wrong options, 130 interrupted.

mod args;
mod arrivals;
mod checks;
mod driver;
mod follower;
mod hosts;
mod phases;
mod picture;
mod rebuild;
mod report;
mod run;
mod sampler;
mod units;
mod world;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nixfleet_harness::say::Say;
use tokio::signal::unix::{SignalKind, signal};

use args::Args;

/// As shells report a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("endurance: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(interruptible(args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("endurance: failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn interruptible(args: Args) -> Result<ExitCode> {
    let say = Say::new(args.json);
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    // Whatever happens, dropping the world stops all that it started; the watchdog of the harness
    // does so when even that is not reached.
    tokio::select! {
        ran = run::run(&args, say) => {
            Ok(if ran? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ = interrupt.recv() => Ok(interrupted(say)),
        _ = terminate.recv() => Ok(interrupted(say)),
    }
}

fn interrupted(say: Say) -> ExitCode {
    say.line("interrupted: stopping everything");
    ExitCode::from(EXIT_INTERRUPTED)
}
