//! `nixfleet-demo`: the main job on a stage of real servers, services and simulated hosts.
//!
//! It plays a bad release and its fix, shows what happens and why, and checks afterwards that
//! everybody knows the same. It decides nothing itself: all it does, an operator could do. Start
//! reading at [`story`].
//!
//! Exit codes: 0 all checks hold, 1 something failed, 2 wrong options, 130 interrupted.

mod args;
mod checks;
mod digest;
mod disruption;
mod explain;
mod fleet;
mod progress;
mod say;
mod stage;
mod story;
mod summary;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use args::Args;
use say::Say;
use stage::Stage;
use story::Story;

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
            eprintln!("demo: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<ExitCode> {
    let say = Say::new(args.json);
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    // Whatever happens, dropping the play stops all that it started; the watchdog of the harness
    // does so when even that is not reached.
    tokio::select! {
        played = play(&args, &say) => played,
        _ = interrupt.recv() => Ok(interrupted(&say)),
        _ = terminate.recv() => Ok(interrupted(&say)),
    }
}

fn interrupted(say: &Say) -> ExitCode {
    say.line("interrupted: stopping everything");
    ExitCode::from(EXIT_INTERRUPTED)
}

async fn play(args: &Args, say: &Say) -> Result<ExitCode> {
    let mut stage = Stage::start(args, say).await?;
    let story = Story::new(args, say);
    let ending = match tokio::time::timeout(args.deadline(), story.play(&mut stage)).await {
        Ok(ending) => ending,
        Err(_) => Err(anyhow::anyhow!(
            "the deadline of {} s has passed",
            args.deadline().as_secs()
        )),
    };
    let ending = match ending {
        Ok(ending) => ending,
        Err(error) => {
            explain::what_is_not_done(&mut stage, say).await;
            keep_open(args, say, &stage).await;
            return Err(error);
        }
    };
    summary::print(&ending, args, say)?;
    keep_open(args, say, &stage).await;
    stage.stop().context("stopping")?;
    Ok(if ending.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// With `--keep`, waits until Ctrl-C ends the program.
async fn keep_open(args: &Args, say: &Say, stage: &Stage) {
    if args.keep {
        for line in stage.addresses() {
            say.line(&line);
        }
        say.line("everything keeps running until Ctrl-C");
        std::future::pending::<()>().await;
    }
}
