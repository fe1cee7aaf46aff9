//! `nixfleet rollouts`.

use clap::{Args, ValueEnum};

use crate::api_responses::{self, Rollouts};
use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;
use crate::table::{add_row, render, table};
use crate::time::short;

/// Rollouts with their waves and hosts by state, newest first
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Which rollouts
    #[arg(long, value_enum, default_value_t = Filter::Current)]
    filter: Filter,
    /// Print the server's response as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Filter {
    /// Neither Superseded, Pruned nor Terminal
    InFlight,
    /// Neither Superseded nor Pruned
    Current,
    /// Every one
    All,
}

impl Filter {
    fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Current => "current",
            Self::All => "all",
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let request = Request {
        path: &["v1", "rollouts"],
        query: vec![("filter", arguments.filter.name().to_owned())],
    };
    let answer = Client::new(&arguments.connection)?.get(&request)?;
    if arguments.json {
        return stdout::json(&answer);
    }
    stdout::line(&text(&client::read(&answer)?))
}

fn text(list: &Rollouts) -> String {
    let mut table = table(&[
        "ROLLOUT",
        "STATE",
        ">WAVE",
        ">HOSTS",
        "HOSTS BY STATE",
        "OPENED",
    ]);
    for rollout in &list.rollouts {
        add_row(
            &mut table,
            [
                rollout.rollout_id.to_string(),
                rollout.state.name().to_owned(),
                api_responses::wave_of(rollout.current_wave, rollout.waves),
                rollout.host_count.to_string(),
                api_responses::states(&rollout.state_counts),
                short(rollout.created_at),
            ],
        );
    }
    render(&table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rollouts_are_one_per_line() {
        let answer = json!({"hostStatesTruncated": false, "rollouts": [
            {"rolloutId": "stable@4f1c", "channel": "stable", "state": "Failed", "currentWave": 0, "waves": 2,
             "createdAt": "2026-05-01T11:01:00Z", "hostStates": {}, "hostCount": 120,
             "stateCounts": {"Pending": 118, "Failed": 2, "Soaking": 0}},
        ]});
        insta::assert_snapshot!(text(&client::read(&answer).unwrap()), @r#"
        ROLLOUT      STATE     WAVE  HOSTS  HOSTS BY STATE         OPENED
        stable@4f1c  Failed  0 of 2    120  118 Pending, 2 Failed  2026-05-01 11:01:00
        "#);
    }
}
