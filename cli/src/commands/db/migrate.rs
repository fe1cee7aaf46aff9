//! `nixfleet db migrate`.

use clap::Args;
use serde::Serialize;

use super::database_options::{Connection, unreachable};
use crate::command_error::CommandError;
use crate::stdout;

/// Brings the schema to the version of this program and grants each service its rights
#[derive(Debug, Args)]
#[command(after_help = "\
Safe at any time and as often as you like. The applier does the same at its start when it has\n\
database.owner_url. Users of services that are made later get their rights by running this again.")]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    applied: Vec<String>,
}

pub async fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let store = arguments.connection.open()?;
    let report = store.migrate().await.map_err(|error| {
        if error.retryable() {
            unreachable(error)
        } else {
            CommandError::refused(error)
        }
    })?;
    if arguments.json {
        return stdout::json(&Answer {
            applied: report.applied,
        });
    }
    if report.applied.is_empty() {
        return stdout::line("the schema was current; rights are as they should be");
    }
    for name in report.applied {
        stdout::line(&format!("applied {name}"))?;
    }
    Ok(())
}
