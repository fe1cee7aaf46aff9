//! `nixfleet unquarantine`.

use clap::Args;
use reqwest::Method;

use crate::api_responses::Appended;
use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;

/// Allows a closure on a channel again; your name and reason are logged
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Name of the channel
    channel: String,
    /// The closure, as printed by `nixfleet explain`
    closure: String,
    /// Reason to be logged
    #[arg(long)]
    reason: String,
    /// Print the server's response as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let path = ["v1", "quarantines", &arguments.channel, &arguments.closure];
    let request = Request {
        path: &path,
        query: vec![("reason", arguments.reason.clone())],
    };
    let client = Client::new(&arguments.connection)?;
    let answer = client.command(Method::DELETE, &request, None::<&()>)?;
    if arguments.json {
        return stdout::json(&answer);
    }
    let Appended {
        partition,
        position,
    } = client::read(&answer)?;
    stdout::line(&format!(
        "appended as entry {}.{} of partition {partition}",
        position.seq, position.index
    ))
}
