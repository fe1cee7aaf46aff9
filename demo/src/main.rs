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
mod stage;
mod story;
mod summary;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nixfleet_harness::program;
use nixfleet_harness::say::Say;

use args::Args;
use stage::Stage;
use story::Story;

fn main() -> ExitCode {
    let args = Args::parse();
    let say = Say::new(args.json);
    program::run("demo", say, play(&args, &say))
}

async fn play(args: &Args, say: &Say) -> Result<bool> {
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
    Ok(ending.holds())
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
