//! `nixfleet-endurance`: a long run on real servers with default settings that checks for unbounded growth,
//! lag and lost events.
//!
//! Simulated hosts append their reports to the bus as a gateway stores them; everything behind the gateway
//! is the real system. It must never help the control plane by trimming streams or restarting services.
//! Start reading at [`run`] and [`rollout_driver`].
//!
//! Exit codes: 0 every check holds, 1 a check or the run itself failed, 2 wrong options, 130 interrupted.

mod args;
mod database_rebuild;
mod final_checks;
mod number_format;
mod output_follower;
mod phases;
mod plot;
mod progress_tracker;
mod rollout_driver;
mod run;
mod sampler;
mod simulated_hosts;
mod summary;
mod testbed;

use std::process::ExitCode;

use clap::Parser;
use nixfleet_harness::program;
use nixfleet_harness::progress_printer::Printer;

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let printer = Printer::new(args.json);
    program::run("endurance", printer, run::run(&args, printer))
}
