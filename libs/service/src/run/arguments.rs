//! Flags and environment of a service binary.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use super::service_info::ServiceInfo;
use crate::config::Sources;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Run,
    Check,
    Print,
}

#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) sources: Sources,
    pub(super) mode: Mode,
}

impl Arguments {
    pub(super) fn parse(
        info: &ServiceInfo,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let stem = info.env_stem();
        let mut matches = Self::command(info, &stem).try_get_matches_from(args)?;
        let file = matches
            .remove_one::<PathBuf>("config")
            .or_else(|| std::env::var_os(format!("{stem}_CONFIG")).map(PathBuf::from));
        let mode = match (matches.get_flag("check"), matches.get_flag("print")) {
            (true, _) => Mode::Check,
            (false, true) => Mode::Print,
            (false, false) => Mode::Run,
        };
        let sources = Sources {
            file,
            env_prefix: info.env_prefix(),
            // Variables of other programs may contain any bytes; those of this program must be text.
            env: std::env::vars_os()
                .filter_map(|(name, text)| {
                    Some((name.into_string().ok()?, text.into_string().ok()?))
                })
                .collect(),
            set: matches
                .remove_many::<String>("set")
                .map(Iterator::collect)
                .unwrap_or_default(),
        };
        Ok(Self { sources, mode })
    }

    fn command(info: &ServiceInfo, stem: &str) -> Command {
        let about = format!(
            "{}\n\nConfiguration: defaults, then the TOML file, then variables \
             {stem}__SECTION__KEY, then --set.\n\
             Exit codes: 0 clean, 1 failure, 2 configuration.",
            info.about
        );
        Command::new(info.name)
            .bin_name(format!("nixfleet-{}", info.name))
            .display_name(format!("nixfleet-{}", info.name))
            .version(info.version)
            .about(info.about)
            .long_about(about)
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help(format!("TOML file to read [env: {stem}_CONFIG]")),
            )
            .arg(
                Arg::new("set")
                    .long("set")
                    .value_name("KEY=VALUE")
                    .action(ArgAction::Append)
                    .help("Sets one key, for example bus.partitions=4"),
            )
            .arg(
                Arg::new("check")
                    .long("check-config")
                    .action(ArgAction::SetTrue)
                    .help("Checks the configuration, lists all faults and ends"),
            )
            .arg(
                Arg::new("print")
                    .long("print-config")
                    .action(ArgAction::SetTrue)
                    .help("Prints the effective configuration without secrets and ends"),
            )
    }
}
