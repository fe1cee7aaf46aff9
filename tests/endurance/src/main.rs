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

use clap::Parser;
use nixfleet_harness::program;
use nixfleet_harness::say::Say;

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    let say = Say::new(args.json);
    program::run("endurance", say, run::run(&args, say))
}
