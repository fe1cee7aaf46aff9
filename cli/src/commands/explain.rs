//! `nixfleet explain`.

use std::fmt::Write as _;

use clap::Args;
use nixfleet_plan::AwaitedStep;
use nixfleet_proto::{HostState, Hostname, Position, RollbackFault};

use crate::api_responses::{Block, Declared, Explanation, RecordExplanation};
use crate::client::{self, Client, Connection, Request};
use crate::command_error::CommandError;
use crate::stdout;
use crate::table::{clean, or_dash};
use crate::time::{short, short_or_dash};

/// Why a host is where it is: every gate that holds it, and what it waits for
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Name of the host
    host: Hostname,
    /// Print the server's response as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let path = ["v1", "hosts", arguments.host.as_str()];
    let answer = Client::new(&arguments.connection)?.get(&Request::path(&path))?;
    if arguments.json {
        return stdout::json(&answer);
    }
    stdout::line(text(&client::read(&answer)?).trim_end())
}

fn text(host: &Explanation) -> String {
    let mut lines = vec![
        format!(
            "{}  runs {}, last seen {}",
            host.hostname,
            or_dash(host.running_closure.as_ref()),
            short_or_dash(host.last_seen_at)
        ),
        declared(host.declared.as_ref()),
    ];
    lines.extend(host.held.as_ref().map(|held| format!("  held: {held}")));
    for record in &host.records {
        lines.push(String::new());
        explain(record, &mut lines);
    }
    let lines: Vec<String> = lines.iter().map(|line| clean(line)).collect();
    lines.join("\n")
}

fn declared(declared: Option<&Declared>) -> String {
    let Some(declared) = declared else {
        return "  it is not in the accepted release".to_owned();
    };
    let mut line = format!("  declared on channel {}", declared.channel);
    match &declared.closure_hash {
        Some(closure) => {
            let _infallible = write!(line, " with {closure}");
        }
        None => line.push_str(" without a closure: it is in no rollout"),
    }
    if let Some(rollout) = declared.rollout_id.as_ref().filter(|_| !declared.opened) {
        let _infallible = write!(line, "; it is not in {rollout}, which may not be open yet");
    }
    line
}

fn explain(explained: &RecordExplanation, lines: &mut Vec<String>) {
    let record = &explained.record;
    let staged = if explained.staged { "" } else { ", in no wave" };
    let waived = if explained.waived {
        ", waived by an operator"
    } else {
        ""
    };
    lines.push(format!(
        "{} ({}, at wave {}): {} in wave {}{staged}{waived}",
        record.rollout_id,
        explained.rollout_state.name(),
        explained.current_wave,
        record.state.name(),
        explained.wave,
    ));
    lines.push(format!("  target   {}", record.target_closure));
    for block in &explained.blocks {
        let cause = block.cause.map(|cause| format!("  [entry {}]", at(cause)));
        lines.push(format!(
            "  held by  {}{}",
            reason(block),
            cause.unwrap_or_default()
        ));
    }
    for waiting in &explained.waiting {
        lines.push(format!("  waits    {}", waits_for(waiting)));
    }
    if explained.blocks.is_empty() && explained.waiting.is_empty() {
        lines.push(format!("  {}", at_rest(explained)));
    }
    lines.push(format!("  changed  by entry {}", at(explained.position)));
}

/// The reason, after the gate's name, with which most reasons begin.
fn reason(block: &Block) -> String {
    let gate = block.gate.name();
    if block.reason.starts_with(gate) {
        block.reason.clone()
    } else {
        format!("{gate}: {}", block.reason)
    }
}

fn at(position: Position) -> String {
    format!("{}.{}", position.seq, position.index)
}

fn at_rest(explained: &RecordExplanation) -> String {
    match explained.record.state {
        HostState::Converged => format!(
            "done     converged {}",
            short_or_dash(explained.record.converged_at)
        ),
        HostState::Reverted => format!(
            "stopped  went back {} to {}",
            short_or_dash(explained.record.reverted_at),
            or_dash(explained.record.reverted_to.as_ref())
        ),
        HostState::Failed => format!(
            "stopped  failed {}, {}",
            short_or_dash(
                explained
                    .record
                    .failed_at
                    .or(explained.record.activation_failed_at)
            ),
            no_rollback(explained.record.rollback_failed)
        ),
        HostState::Pending => "free     nothing holds it, the planner decides next".to_owned(),
        HostState::Activating | HostState::Deferred | HostState::Soaking => {
            "free     nothing holds it".to_owned()
        }
    }
}

fn no_rollback(fault: Option<RollbackFault>) -> &'static str {
    match fault {
        None => "no rollback is coming",
        Some(RollbackFault::Impossible) => {
            "no rollback is coming: the host knows no earlier closure"
        }
        Some(RollbackFault::Failed) => "no rollback is coming: every attempt failed",
    }
}

fn waits_for(waiting: &AwaitedStep) -> String {
    match waiting {
        AwaitedStep::Acknowledgement => "for the agent to take its dispatch".to_owned(),
        AwaitedStep::Activation => "for the switch to finish".to_owned(),
        AwaitedStep::Reboot => "for a reboot".to_owned(),
        AwaitedStep::Soak { due_at } => format!("for the soak to end at {}", short(*due_at)),
        AwaitedStep::ProbeTopology => "for the agent to declare its probes".to_owned(),
        AwaitedStep::Probe { probes } => {
            let names: Vec<&str> = probes.iter().map(AsRef::as_ref).collect();
            format!("for a pass of {}", names.join(", "))
        }
        AwaitedStep::Report => "for the agent to report convergence".to_owned(),
        AwaitedStep::Rollback => "for the rollback to finish".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(state: &str, blocks: Value, waiting: Value) -> Value {
        json!({
            "record": {"rolloutId": "stable@4f1c", "hostname": "web-01", "channel": "stable", "state": state,
                "targetClosure": "bbb-nixos", "soakMinutes": 30, "dispatchedAt": "2026-05-01T10:00:00Z",
                "convergedAt": "2026-05-01T11:00:00Z", "probes": {}, "lastEventSeq": 4, "recoverySeq": 0},
            "rolloutState": "Active", "currentWave": 0, "wave": 1, "staged": true, "blocks": blocks,
            "waiting": waiting, "waived": false, "quarantined": false, "outstandingComplianceFailures": 0,
            "outstandingHealthFailures": 0, "position": {"seq": 17, "index": 2},
        })
    }

    #[test]
    fn every_block_and_wait_is_explained() {
        let blocks = json!([
            {"gate": "quarantine", "reason": "quarantine: bbb-nixos", "cause": {"seq": 12, "index": 0}, "position": {"seq": 13, "index": 0}},
            {"gate": "wave-promotion", "reason": "wave-promotion: wave 1 of 3", "position": {"seq": 13, "index": 1}}]);
        let waiting = json!([
            {"on": "acknowledgement"}, {"on": "activation"}, {"on": "reboot"},
            {"on": "soak", "dueAt": "2026-05-01T12:30:00Z"}, {"on": "probe-topology"},
            {"on": "probe", "probes": ["http", "disk"]}, {"on": "report"}, {"on": "rollback"}]);
        let host = json!({"hostname": "web-01", "lastSeenAt": "2026-05-01T12:00:00Z", "runningClosure": "aaa-nixos",
            "declared": {"channel": "stable", "closureHash": "bbb-nixos", "tags": [], "rolloutId": "stable@4f1c", "opened": true},
            "records": [record("Pending", blocks, json!([])), record("Soaking", json!([]), waiting)]});
        insta::assert_snapshot!(text(&client::read(&host).unwrap()), @r#"
        web-01  runs aaa-nixos, last seen 2026-05-01 12:00:00
          declared on channel stable with bbb-nixos

        stable@4f1c (Active, at wave 0): Pending in wave 1
          target   bbb-nixos
          held by  quarantine: bbb-nixos  [entry 12.0]
          held by  wave-promotion: wave 1 of 3
          changed  by entry 17.2

        stable@4f1c (Active, at wave 0): Soaking in wave 1
          target   bbb-nixos
          waits    for the agent to take its dispatch
          waits    for the switch to finish
          waits    for a reboot
          waits    for the soak to end at 2026-05-01 12:30:00
          waits    for the agent to declare its probes
          waits    for a pass of http, disk
          waits    for the agent to report convergence
          waits    for the rollback to finish
          changed  by entry 17.2
        "#);
    }

    #[test]
    fn idle_hosts_are_explained() {
        let declared = |closure: Value, opened: bool| {
            json!({"channel": "stable", "closureHash": closure, "tags": [],
            "rolloutId": "stable@4f1c", "opened": opened})
        };
        let host = |declared: Value, records: Value| {
            let host = json!({"hostname": "web-01", "declared": declared, "records": records});
            text(&client::read(&host).unwrap())
        };
        let none = || json!([]);
        let texts = [
            host(json!(null), json!([record("Converged", none(), none())])),
            host(
                declared(json!(null), true),
                json!([record("Reverted", none(), none())]),
            ),
            host(
                declared(json!("bbb"), false),
                json!([
                    record("Failed", none(), none()),
                    record("Pending", none(), none())
                ]),
            ),
        ];
        insta::assert_snapshot!(texts.join("\n\n"), @r#"
        web-01  runs -, last seen -
          it is not in the accepted release

        stable@4f1c (Active, at wave 0): Converged in wave 1
          target   bbb-nixos
          done     converged 2026-05-01 11:00:00
          changed  by entry 17.2

        web-01  runs -, last seen -
          declared on channel stable without a closure: it is in no rollout

        stable@4f1c (Active, at wave 0): Reverted in wave 1
          target   bbb-nixos
          stopped  went back - to -
          changed  by entry 17.2

        web-01  runs -, last seen -
          declared on channel stable with bbb; it is not in stable@4f1c, which may not be open yet

        stable@4f1c (Active, at wave 0): Failed in wave 1
          target   bbb-nixos
          stopped  failed -, no rollback is coming
          changed  by entry 17.2

        stable@4f1c (Active, at wave 0): Pending in wave 1
          target   bbb-nixos
          free     nothing holds it, the planner decides next
          changed  by entry 17.2
        "#);
    }
}
