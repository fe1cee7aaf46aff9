//! Command line options.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use nixfleet_harness::Service;
use nixfleet_harness::program::{RunOptions, parse_hosts};

/// Fewer hosts do not fill every wave of every channel.
const HOSTS_MIN: usize = 20;

/// Rolls out a bad and a good release to a simulated fleet on real servers, or runs a fleet for a person
/// to release to (`--fleet`).
#[derive(Debug, Clone, Parser)]
#[command(name = "nixfleet-demo", version, bin_name = "cargo xtask demo")]
pub struct Args {
    /// Hosts of the fleet, at least 20.
    #[arg(long, default_value_t = 300, value_parser = parse_hosts::<HOSTS_MIN>)]
    pub hosts: usize,
    /// Decides what happens to each host.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Options of every such program.
    #[command(flatten)]
    pub run: RunOptions,
    /// Processes of each service.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub instances: u8,
    /// Kill one service with SIGKILL during the rollout and restart it.
    #[arg(long, value_name = "SERVICE")]
    pub kill: Option<Service>,
    /// Drop the schema of the database in the middle and restart all services.
    #[arg(long)]
    pub wipe_postgres: bool,
    /// Timeout of the demo in seconds [default: 240 plus one per five hosts].
    #[arg(long, value_name = "SECONDS")]
    pub deadline_seconds: Option<u64>,
    /// Publish no release: run the hosts of this fleet source (JSON) until Ctrl-C.
    #[arg(long, value_name = "FILE", requires = "env_file", conflicts_with_all =
        ["hosts", "keep", "json", "kill", "wipe_postgres", "deadline_seconds"])]
    pub fleet: Option<PathBuf>,
    /// File for the environment of `nixfleet` with this fleet, as shell commands for `source`.
    #[arg(long, value_name = "FILE", requires = "fleet")]
    pub env_file: Option<PathBuf>,
}

impl Args {
    pub fn deadline(&self) -> Duration {
        let default = 240 + self.hosts as u64 / 5;
        Duration::from_secs(self.deadline_seconds.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["demo", "--hosts", "5"]).is_err());
        assert!(Args::try_parse_from(["demo", "--kill", "nats"]).is_err());
        assert!(Args::try_parse_from(["demo", "--fleet", "fleet.json"]).is_err());
        let args = Args::try_parse_from(["demo", "--kill", "applier"]).unwrap();
        assert_eq!(args.kill, Some(Service::Applier));
    }
}
