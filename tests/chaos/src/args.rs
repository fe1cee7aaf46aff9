//! Command line options.

use std::time::Duration;

use clap::Parser;
use nixfleet_harness::program::{RunOptions, parse_hosts};

/// Smaller fleets do not fill both waves of every channel.
const HOSTS_MIN: usize = 16;

/// Injects faults into a control plane under load, and checks that no event is lost or applied twice.
#[derive(Debug, Clone, Parser)]
#[command(name = "nixfleet-chaos", version, bin_name = "cargo xtask chaos")]
pub struct Args {
    /// Minutes of fault injection; every kind of fault happens at least once, however few they are.
    #[arg(long, default_value_t = 2.0, value_parser = minutes)]
    pub minutes: f64,
    /// Seed of faults, releases and host behaviour.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Hosts of the fleet, at least 16.
    #[arg(long, default_value_t = 48, value_parser = parse_hosts::<HOSTS_MIN>)]
    pub hosts: usize,
    /// Only faults whose name contains this text; several are separated by commas.
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Size of each log in MiB, at least 2, so that logs are trimmed during the run. The default is that of
    /// the services, which a run does not fill.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=65_536))]
    pub log_mib: Option<u64>,
    /// A host floods the gateways with large events during the whole fault injection.
    #[arg(long)]
    pub flood: bool,
    /// Options that all such programs share.
    #[command(flatten)]
    pub run: RunOptions,
}

impl Args {
    /// Duration of the fault injection.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// Size of a log in bytes, where it is not the default.
    pub fn log_limit(&self) -> Option<u64> {
        self.log_mib.map(|mib| mib * 1024 * 1024)
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if !(0.1..=10_080.0).contains(&minutes) {
        return Err("must be between 0.1 and 10080".to_owned());
    }
    Ok(minutes)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_consistent() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["chaos", "--hosts", "5"]).is_err());
        assert!(Args::try_parse_from(["chaos", "--minutes", "0"]).is_err());
        assert!(Args::try_parse_from(["chaos", "--log-mib", "1"]).is_err());
        let args = Args::try_parse_from(["chaos", "--log-mib", "8"]).unwrap();
        assert_eq!(args.log_limit(), Some(8_388_608));
        let args = Args::try_parse_from(["chaos", "--minutes", "0.5", "--only", "nats,disk"]);
        let args = args.unwrap();
        assert_eq!(args.duration(), Duration::from_secs(30));
        assert_eq!(args.only, ["nats", "disk"]);
        assert!(!args.flood);
    }
}
