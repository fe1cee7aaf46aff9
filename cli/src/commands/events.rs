//! `nixfleet events`.

use std::time::Duration;

use clap::Args;
use nixfleet_proto::RolloutId;
use serde::Deserialize;
use serde_json::Value;

use crate::api_responses::Event;
use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;
use crate::table::{clean, or_dash};
use crate::time::short;

const PAGE: u32 = 1000;
/// Pause before the next request when the log has no new entries.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);
/// Consecutive failed attempts after which following ends: about a minute.
const FOLLOW_ATTEMPTS: u32 = 60;

/// The log of one rollout: every entry and its outcome
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Id of the rollout, channel@ref
    rollout: String,
    /// Wait for more until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Start after this position, seq or seq.index
    #[arg(long)]
    after: Option<String>,
    /// Stop after this many
    #[arg(long)]
    limit: Option<usize>,
    /// Print each entry as one JSON object on a line
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let rollout = RolloutId::parse_strict(&arguments.rollout).map_err(CommandError::input)?;
    let client = Client::new(&arguments.connection)?;
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    let mut after = arguments.after.clone();
    let mut failed = 0;
    while left > 0 {
        match page(&client, &rollout, after.as_deref()) {
            Ok(page) => {
                failed = 0;
                for event in page.events.iter().take(left) {
                    after = Some(print(event, arguments.json)?);
                    left -= 1;
                }
                if let Some(next) = page.next {
                    after = Some(next);
                    continue;
                }
                if !arguments.follow || left == 0 {
                    break;
                }
            }
            // A follower outlives a restart of the server, but not its own mistakes.
            Err(error)
                if arguments.follow && error.is_unreachable() && failed < FOLLOW_ATTEMPTS =>
            {
                if failed == 0 {
                    error.report();
                }
                failed += 1;
            }
            Err(error) => return Err(error),
        }
        client.pause(FOLLOW_PAUSE);
    }
    Ok(())
}

/// Entries, and where the next page begins when there is one already.
#[derive(Deserialize)]
struct Page {
    events: Vec<Value>,
    next: Option<String>,
}

fn page(client: &Client, rollout: &RolloutId, after: Option<&str>) -> Result<Page, CommandError> {
    let mut query = vec![("limit", PAGE.to_string())];
    query.extend(after.map(|after| ("after", after.to_owned())));
    let answer = client.get(&Request {
        path: &["v1", "rollouts", rollout.as_str(), "events"],
        query,
    })?;
    client::read(&answer)
}

/// Prints one entry and returns its position.
fn print(value: &Value, json: bool) -> Result<String, CommandError> {
    let event: Event = client::read(value)?;
    if json {
        stdout::json(value)?;
    } else {
        stdout::line(&text(&event))?;
    }
    Ok(format!("{}.{}", event.seq, event.index))
}

fn text(event: &Event) -> String {
    let position = format!("{}.{}", event.seq, event.index);
    let line = format!(
        "{}  {position:<10}  {:<24}  {:<20}  {}",
        short(event.ts),
        event.name(),
        or_dash(event.host.as_ref()),
        outcome_text(event.outcome.as_ref())
    );
    clean(line.trim_end())
}

/// Transitions of an accepted entry, or the reason of its rejection.
fn outcome_text(outcome: Option<&Value>) -> String {
    let Some(outcome) = outcome.filter(|outcome| !outcome.is_null()) else {
        return "(outcome not archived yet)".to_owned();
    };
    if let Some(rejected) = outcome.get("rejected") {
        let text = |key: &str| rejected[key].as_str().unwrap_or("?");
        let claimed = actor(outcome).map_or_else(String::new, |actor| format!(", claims {actor}"));
        return format!("rejected, {}: {}{claimed}", text("reason"), text("message"));
    }
    let transitions: Vec<String> = outcome["accepted"]["effects"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|effect| {
            let what = match effect["effect"].as_str()? {
                "RecordTransition" => "host",
                "RecordRolloutTransition" => "rollout",
                _ => return None,
            };
            Some(format!(
                "{what} {} -> {}",
                effect["from"].as_str()?,
                effect["to"].as_str()?
            ))
        })
        .collect();
    let by = actor(outcome).map(|actor| format!("by {actor}"));
    transitions
        .into_iter()
        .chain(by)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Who gave a command.
fn actor(outcome: &Value) -> Option<String> {
    let actor = &outcome["subject"]["actor"];
    let (subject, issuer) = (actor["subject"].as_str()?, actor["issuer"].as_str()?);
    Some(format!("{subject} ({issuer})"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_shown_with_their_outcomes() {
        let check = |outcome: Value| {
            let event = json!({"seq": 7, "index": 3, "ts": "2026-05-01T11:01:00Z", "kind": "HostEvent",
                "host": "web-01", "payload": {"body": {"event": {"body": {"kind": "ActivationCompleted"}}}},
                "outcome": outcome});
            text(&client::read(&event).unwrap())
        };
        let lines = [
            check(json!(null)),
            check(json!({"accepted": {"effects": [
                {"effect": "RecordTransition", "from": "Activating", "to": "Soaking"},
                {"effect": "RemoveDispatch"},
                {"effect": "RecordRolloutTransition", "from": "Active", "to": "Converging"}]}})),
            check(
                json!({"rejected": {"reason": "stale", "message": "seq 3 is not above 3\u{1b}[2J"}}),
            ),
            check(json!({"accepted": {}})),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        2026-05-01 11:01:00  7.3         ActivationCompleted       web-01                (outcome not archived yet)
        2026-05-01 11:01:00  7.3         ActivationCompleted       web-01                host Activating -> Soaking, rollout Active -> Converging
        2026-05-01 11:01:00  7.3         ActivationCompleted       web-01                rejected, stale: seq 3 is not above 3�[2J
        2026-05-01 11:01:00  7.3         ActivationCompleted       web-01
        "#);
    }
}
