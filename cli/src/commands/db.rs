//! `nixfleet db`: the one command that talks to Postgres itself, as the owner of the schema: to make
//! it, to compare its tables with the archive and the archive with the streams, and to rebuild them.

use clap::{Args, Subcommand};

use crate::command_error::{CommandError, InputContext};

mod archive_gaps;
mod archive_reader;
mod archive_replayer;
mod artifact_source;
mod database_options;
mod migrate;
mod rebuild;
mod roles;
mod stream_comparison;
mod verify;
mod verify_result;

/// Makes, verifies and rebuilds the database
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    Migrate(migrate::Arguments),
    Roles(roles::Arguments),
    Verify(verify::Arguments),
    Rebuild(rebuild::Arguments),
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .or_input_error(|| "cannot start".to_owned())?;
    runtime.block_on(async {
        match &arguments.work {
            Work::Migrate(arguments) => migrate::run(arguments).await,
            Work::Roles(arguments) => roles::run(arguments).await,
            Work::Verify(arguments) => verify::run(arguments).await,
            Work::Rebuild(arguments) => rebuild::run(arguments).await,
        }
    })
}
