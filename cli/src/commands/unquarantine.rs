//! `nixfleet unquarantine`.

use clap::Args;
use reqwest::Method;

use crate::api::Appended;
use crate::client::{self, Client, Connection, Request};
use crate::failure::Failure;
use crate::output;

/// Allows a closure on a channel again, with your name and reason in the log
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Name of the channel
    channel: String,
    /// The closure, as `nixfleet explain` shows it
    closure: String,
    /// Why; goes into the record
    #[arg(long)]
    reason: String,
    /// Print the server's answer as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = ["v1", "quarantines", &arguments.channel, &arguments.closure];
    let request = Request {
        path: &path,
        query: vec![("reason", arguments.reason.clone())],
    };
    let client = Client::new(&arguments.connection)?;
    let answer = client.command(Method::DELETE, &request, None::<&()>)?;
    if arguments.json {
        return output::json(&answer);
    }
    let Appended {
        partition,
        position,
    } = client::read(&answer)?;
    output::line(&format!(
        "appended as entry {}.{} of partition {partition}",
        position.seq, position.index
    ))
}
