//! Command line options.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use nixfleet_harness::binaries;
use nixfleet_harness::program::parse_hosts;

/// Fewer hosts do not fill four waves.
const HOSTS_MIN: usize = 20;

/// Runs a control plane with its default settings for a long time: release after release, millions of
/// events, rounds of probes. Fails when the disk of the bus grows beyond its limit, when a service is
/// not ready at any time, or when an event is missing in tables or archive at the end.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "nixfleet-endurance",
    version,
    bin_name = "cargo xtask endurance"
)]
pub struct Args {
    /// Hosts of the only channel, at least 20.
    #[arg(long, default_value_t = 10_000, value_parser = parse_hosts::<HOSTS_MIN>)]
    pub hosts: usize,
    /// Releases, one after the other; each reaches every host.
    #[arg(long, default_value_t = 30)]
    pub releases: u32,
    /// Number of accepted events to reach while the releases are rolled out: hosts report probe results for
    /// the events that the rollouts do not produce.
    #[arg(long, default_value_t = 5_000_000)]
    pub events: u64,
    /// Rounds of probes of all hosts after that, three events per host and round.
    #[arg(long, default_value_t = 100)]
    pub probe_rounds: u32,
    /// A predefined run instead of the numbers above.
    #[arg(long, value_enum)]
    pub scale: Option<Scale>,
    /// Drop the database at the end, while the services run, and measure the time until they have rebuilt
    /// rollouts, quarantine, halt, waived hosts and state.
    #[arg(long)]
    pub drop_database: bool,
    /// Path of the SVG plot over time [default: docs/bench/endurance.svg, or endurance-million.svg].
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Print the result as JSON on standard output, and all other output on standard error.
    #[arg(long)]
    pub json: bool,
}

/// Predefined runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// A channel of 1,000,000 hosts converges once.
    Million,
}

/// Size of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Hosts.
    pub hosts: usize,
    /// Releases.
    pub releases: u32,
    /// Events while they are rolled out.
    pub events: u64,
    /// Rounds of probes after the releases.
    pub probe_rounds: u32,
}

impl Args {
    /// The size of the run.
    pub fn volume(&self) -> Volume {
        match self.scale {
            Some(Scale::Million) => Volume {
                hosts: 1_000_000,
                releases: 1,
                events: 0,
                probe_rounds: 0,
            },
            None => Volume {
                hosts: self.hosts,
                releases: self.releases,
                events: self.events,
                probe_rounds: self.probe_rounds,
            },
        }
    }

    /// Path of the plot.
    pub fn picture(&self) -> PathBuf {
        let name = match self.scale {
            Some(Scale::Million) => "endurance-million.svg",
            None => "endurance.svg",
        };
        let default = || binaries::checkout().join("docs/bench").join(name);
        self.picture.clone().unwrap_or_else(default)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["endurance", "--hosts", "5"]).is_err());
        let args = Args::try_parse_from(["endurance"]).unwrap();
        let expected = Volume {
            hosts: 10_000,
            releases: 30,
            events: 5_000_000,
            probe_rounds: 100,
        };
        assert_eq!(args.volume(), expected);
        let args = Args::try_parse_from(["endurance", "--scale", "million"]).unwrap();
        assert_eq!(args.volume().hosts, 1_000_000);
        assert!(args.picture().ends_with("endurance-million.svg"));
    }
}
