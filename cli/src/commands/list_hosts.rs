//! `nixfleet hosts`.

use clap::Args;
use serde_json::{Value, json};

use crate::api_responses::HostEntry;
use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;
use crate::table::{add_row, or_dash, render, table};
use crate::time::short_or_dash;

const PAGE: u32 = 1000;

/// Hosts with their state in each open rollout
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Only hosts of this channel
    #[arg(long)]
    channel: Option<String>,
    /// Only hosts in this state, for example Failed
    #[arg(long)]
    state: Option<String>,
    /// Only hosts of this rollout
    #[arg(long)]
    rollout: Option<String>,
    /// Stop after this many
    #[arg(long)]
    limit: Option<usize>,
    /// Print one JSON object with the list `hosts`
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let client = Client::new(&arguments.connection)?;
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let mut hosts: Vec<Value> = Vec::new();
    let mut after: Option<String> = None;
    while hosts.len() < limit {
        let mut query = vec![("limit", PAGE.to_string())];
        query.extend(after.take().map(|after| ("after", after)));
        let mut answer = client.get(&Request {
            path: &["v1", "hosts"],
            query,
        })?;
        if let Value::Array(page) = answer["hosts"].take() {
            hosts.extend(page.into_iter().filter(|host| is_wanted(host, arguments)));
        }
        match answer["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    hosts.truncate(limit);
    if arguments.json {
        return stdout::json(&json!({ "hosts": hosts }));
    }
    let entries: Vec<HostEntry> = client::read(&Value::Array(hosts))?;
    stdout::line(&text(&entries))
}

fn is_wanted(host: &Value, arguments: &Arguments) -> bool {
    let is = |key: &str, wanted: &Option<String>| {
        wanted
            .as_deref()
            .is_none_or(|wanted| host[key].as_str() == Some(wanted))
    };
    is("channel", &arguments.channel)
        && is("rolloutState", &arguments.state)
        && is("lastRolloutId", &arguments.rollout)
}

fn text(hosts: &[HostEntry]) -> String {
    let mut table = table(&[
        "HOST",
        "ROLLOUT",
        ">WAVE",
        "STATE",
        "RUNS",
        "LAST SEEN",
        "REMARKS",
    ]);
    for host in hosts {
        add_row(
            &mut table,
            [
                host.hostname.to_string(),
                host.last_rollout_id.to_string(),
                host.wave.to_string(),
                host.rollout_state.name().to_owned(),
                or_dash(host.current_closure_hash.as_ref()),
                short_or_dash(host.last_checkin_at),
                remarks(host),
            ],
        );
    }
    render(&table)
}

fn remarks(host: &HostEntry) -> String {
    let mut remarks = Vec::new();
    if host.last_rollout_id.channel() != host.channel {
        remarks.push(format!("now of channel {}", host.channel));
    }
    if host.pending_reboot {
        remarks.push("needs a reboot".to_owned());
    }
    if host.quarantined_closure.is_some() {
        remarks.push("closure quarantined".to_owned());
    }
    if host.outstanding_health_failures > 0 {
        remarks.push(format!("{} probes fail", host.outstanding_health_failures));
    }
    if host.outstanding_compliance_failures > 0 {
        remarks.push(format!(
            "{} controls fail",
            host.outstanding_compliance_failures
        ));
    }
    remarks.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_one_per_line_with_their_anomalies() {
        let answer = json!([
            {"hostname": "web-01", "channel": "stable", "lastRolloutId": "stable@4f1c", "rolloutState": "Converged",
             "wave": 0, "currentClosureHash": "aaa-nixos", "lastCheckinAt": "2026-05-01T11:01:00.123Z", "quarantinedClosure": null},
            {"hostname": "web-02", "channel": "stable", "lastRolloutId": "stable@4f1c", "rolloutState": "Deferred",
             "wave": 1, "currentClosureHash": null, "lastCheckinAt": null, "quarantinedClosure": "bbb",
             "pendingReboot": true, "outstandingHealthFailures": 1, "outstandingComplianceFailures": 2},
        ]);
        insta::assert_snapshot!(text(&client::read::<Vec<HostEntry>>(&answer).unwrap()), @r#"
        HOST    ROLLOUT      WAVE  STATE      RUNS       LAST SEEN            REMARKS
        web-01  stable@4f1c     0  Converged  aaa-nixos  2026-05-01 11:01:00
        web-02  stable@4f1c     1  Deferred   -          -                    needs a reboot, closure quarantined, 1 probes fail, 2 controls fail
        "#);
    }
}
