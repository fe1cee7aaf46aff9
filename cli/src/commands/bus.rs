//! `nixfleet bus`.

use clap::{Args, Subcommand};
use nixfleet_bus::BusAccess;
use nixfleet_proto::subject::MAX_PARTITIONS;

use crate::command_error::CommandError;
use crate::stdout;

/// Configuration of the bus for its administrator; connects to nothing
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the accounts and users for nats.conf: what each service may do, and nothing else
    Users {
        /// `bus.prefix` of the services
        #[arg(long, default_value = "fleet")]
        prefix: String,
        /// `bus.partitions` of the services
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_PARTITIONS)))]
        partitions: u16,
        /// Print the rights as a table in Markdown instead
        #[arg(long)]
        table: bool,
    },
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let What::Users {
        prefix,
        partitions,
        table,
    } = &arguments.what;
    let text = match table {
        true => BusAccess::markdown(),
        false => BusAccess::new(prefix, *partitions).nats_accounts(),
    };
    stdout::line(text.trim_end())
}
