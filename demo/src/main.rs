//! `nixfleet-demo`: a halted and a successful rollout on real servers, services and simulated hosts.
//!
//! Publishes a bad release and its fix, shows the rollout and the reasons of its halt, and checks that
//! hosts, tables and archive agree. It uses only operations that an operator has. Start reading at
//! [`scenario`]. With `--fleet` it publishes nothing and leaves the operations to a person ([`interactive`]).
//!
//! Exit codes: 0 every check holds, 1 a check or the run itself failed, 2 wrong options, 130 interrupted.

mod args;
mod explain;
mod fault_injection;
mod final_checks;
mod fleet;
mod interactive;
mod progress;
mod scenario;
mod state_digest;
mod summary;
mod testbed;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nixfleet_harness::program;
use nixfleet_harness::progress_printer::Printer;

use args::Args;
use scenario::Scenario;
use testbed::Testbed;

fn main() -> ExitCode {
    let args = Args::parse();
    let printer = Printer::new(args.run.json);
    program::run("demo", printer, run_demo(&args, &printer))
}

async fn run_demo(args: &Args, printer: &Printer) -> Result<bool> {
    let mut testbed = Testbed::start(args, printer).await?;
    if let (Some(fleet), Some(env_file)) = (&args.fleet, &args.env_file) {
        return interactive::run(&mut testbed, fleet, env_file, printer).await;
    }
    let scenario = Scenario::new(args, printer);
    let result = match tokio::time::timeout(args.deadline(), scenario.run(&mut testbed)).await {
        Ok(result) => result,
        Err(_) => Err(anyhow::anyhow!(
            "the deadline of {} s has passed",
            args.deadline().as_secs()
        )),
    };
    let result = match result {
        Ok(result) => result,
        Err(error) => {
            explain::explain_unfinished(&mut testbed, printer).await;
            keep_running(args, printer, &testbed).await;
            return Err(error);
        }
    };
    summary::print(&result, args, printer)?;
    keep_running(args, printer, &testbed).await;
    testbed.stop().context("stopping")?;
    Ok(result.holds())
}

/// With `--keep`, prints the addresses and waits for Ctrl-C.
async fn keep_running(args: &Args, printer: &Printer, testbed: &Testbed) {
    if args.run.keep {
        for line in testbed.addresses() {
            printer.line(&line);
        }
        args.run.keep_running(*printer).await;
    }
}
