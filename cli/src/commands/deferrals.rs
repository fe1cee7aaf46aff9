//! `nixfleet deferrals`.

use clap::Args;

use crate::api_responses::Deferrals;
use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;
use crate::table::{add_row, render, table};
use crate::time::short;

/// Every host that a gate holds, and why
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Print the server's response as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let answer = Client::new(&arguments.connection)?.get(&Request::path(&["v1", "deferrals"]))?;
    if arguments.json {
        return stdout::json(&answer);
    }
    stdout::line(&text(&client::read(&answer)?))
}

fn text(list: &Deferrals) -> String {
    let mut table = table(&["HOST", "ROLLOUT", ">WAVE", "GATE", "SINCE", "REASON"]);
    for deferral in &list.deferrals {
        add_row(
            &mut table,
            [
                deferral.host.to_string(),
                deferral.rollout.to_string(),
                deferral.wave.to_string(),
                deferral.blocked_by.name().to_owned(),
                short(deferral.observed_at),
                deferral.reason.clone(),
            ],
        );
    }
    let mut text = render(&table);
    if list.truncated {
        text.push_str("\nand more, which the server did not list");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn held_hosts_are_one_per_line_and_gate() {
        let answer = json!({"truncated": true, "deferrals": [
            {"host": "web-01", "rollout": "stable@4f1c", "blockedBy": "disruption-budget",
             "reason": "disruption-budget: 1/1 in flight (tags:web)", "observedAt": "2026-05-01T11:01:00Z", "wave": 0,
             "position": {"seq": 1, "index": 0}}]});
        insta::assert_snapshot!(text(&client::read(&answer).unwrap()), @r#"
        HOST    ROLLOUT      WAVE  GATE               SINCE                REASON
        web-01  stable@4f1c     0  disruption-budget  2026-05-01 11:01:00  disruption-budget: 1/1 in flight (tags:web)
        and more, which the server did not list
        "#);
    }
}
