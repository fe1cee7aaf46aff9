//! `nixfleet-endurance`: a long run on real servers with default settings, and whether anything fills
//! up, falls behind or gets lost.
//!
//! Hosts follow a script and report over the bus, as a gateway stores what they send; everything behind
//! it is the real system. It must never help the control plane: it trims nothing and restarts nothing.
//! Start reading at [`run`] and [`driver`].
//!
//! Exit codes: 0 everything holds, 1 something does not, 2 wrong options, 130 interrupted.

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
use nixfleet_harness::printer::Printer;
use nixfleet_harness::program;

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let printer = Printer::new(args.json);
    program::run("endurance", printer, run::run(&args, printer))
}
