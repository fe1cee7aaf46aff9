//! `nixfleet clear`.

use clap::Args;
use nixfleet_proto::{Hostname, RolloutId};
use reqwest::Method;
use serde_json::json;

use crate::api_responses::Appended;
use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;

/// Lets a failed or reverted rollout continue; your name and reason are logged
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Id of the rollout, channel@ref
    rollout: String,
    /// Reason to be logged
    #[arg(long)]
    reason: String,
    /// A host to waive in this rollout; may be given several times
    #[arg(long = "waive", value_name = "HOST")]
    waived: Vec<Hostname>,
    /// Print the server's response as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let rollout = RolloutId::parse_strict(&arguments.rollout).map_err(CommandError::input)?;
    let body = json!({ "reason": arguments.reason, "waivedHosts": arguments.waived });
    let path = ["v1", "rollouts", rollout.as_str(), "clearance"];
    let client = Client::new(&arguments.connection)?;
    let answer = client.command(Method::POST, &Request::path(&path), Some(&body))?;
    if arguments.json {
        return stdout::json(&answer);
    }
    let Appended {
        partition,
        position,
    } = client::read(&answer)?;
    stdout::line(&format!(
        "appended as entry {}.{} of partition {partition}; `nixfleet events {rollout}` shows its outcome",
        position.seq, position.index
    ))
}
