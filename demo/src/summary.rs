//! The end: a table for people, or JSON for machines.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::Table;
use nixfleet_audit::Facts;
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::digest;
use crate::story::Ending;
use nixfleet_harness::say::Say;

/// Prints the result.
///
/// # Errors
/// Never, in practice: the result is data.
pub fn print(ending: &Ending, args: &Args, say: &Say) -> Result<()> {
    say.title("Result");
    say.line(&table(ending).to_string());
    for check in &ending.checks {
        match &check.fault {
            None => say.line(&format!("ok    {}", check.name)),
            Some(fault) => say.line(&format!("FAIL  {}: {fault}", check.name)),
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&document(ending, args))?);
    }
    Ok(())
}

fn table(ending: &Ending) -> Table {
    let facts = &ending.facts;
    let archive = &facts.archive;
    let latency = &facts.swarm.dispatch_latency_ms;
    let mut table = Table::new();
    table.set_header(["", "value"]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("hosts", facts.swarm.hosts.len().to_string());
    for (state, count) in hosts_by_state(facts) {
        row(&format!("  {state}"), count.to_string());
    }
    row("events in", archive.events_in.to_string());
    row(
        "events/s, average",
        format!("{:.1}", events_per_second(facts)),
    );
    row("events/s, busiest second", archive.events_peak.to_string());
    row("dispatch latency p50", format!("{} ms", latency.p50));
    row("dispatch latency p99", format!("{} ms", latency.p99));
    row("log entries", archive.entries.to_string());
    for (writer, count) in &archive.writers {
        row(&format!("  by {writer}"), count.to_string());
    }
    let rejections = by_reason(facts);
    row("rejections", rejections.values().sum::<i64>().to_string());
    for (reason, count) in rejections {
        row(&format!("  {reason}"), count.to_string());
    }
    row("quarantined", facts.quarantines.join(", "));
    row(
        "rollout time",
        format!("{:.1} s", ending.rollout_time.as_secs_f64()),
    );
    row(
        "total time",
        format!("{:.1} s", ending.total_time.as_secs_f64()),
    );
    table
}

fn document(ending: &Ending, args: &Args) -> Value {
    let facts = &ending.facts;
    let archive = &facts.archive;
    let rejections: Vec<Value> = archive
        .rejections
        .iter()
        .map(|((event, producer, reason), count)| {
            json!({"event": event, "producer": producer, "reason": reason, "count": count})
        })
        .collect();
    let checks: Vec<Value> = ending
        .checks
        .iter()
        .map(|check| json!({"name": check.name, "holds": check.fault.is_none(), "fault": check.fault}))
        .collect();
    json!({
        "ok": ending.holds(),
        "hosts": facts.swarm.hosts.len(),
        "seed": args.seed,
        "instances": args.instances,
        "hostsByState": hosts_by_state(facts),
        "eventsIn": archive.events_in,
        "eventsPerSecond": events_per_second(facts),
        "eventsPerSecondPeak": archive.events_peak,
        "dispatchLatencyMs": facts.swarm.dispatch_latency_ms,
        "logEntries": archive.entries,
        "entriesByWriter": archive.writers,
        "rejections": rejections,
        "quarantines": facts.quarantines,
        "swarm": facts.swarm.totals,
        "rolloutSeconds": ending.rollout_time.as_secs_f64(),
        "totalSeconds": ending.total_time.as_secs_f64(),
        "stateDigest": digest::of(facts),
        "checks": checks,
        "rollouts": rollouts(facts),
    })
}

fn rollouts(facts: &Facts) -> Value {
    let states: Map<String, Value> = facts
        .rollouts
        .iter()
        .map(|(id, row)| (id.clone(), Value::from(row.state.clone())))
        .collect();
    Value::from(states)
}

fn hosts_by_state(facts: &Facts) -> BTreeMap<String, usize> {
    let current = facts.current_rollouts();
    let mut states = BTreeMap::new();
    for ((rollout_id, _), row) in &facts.hosts {
        if current.contains(rollout_id.as_str()) {
            *states.entry(row.state.clone()).or_insert(0) += 1;
        }
    }
    states
}

fn by_reason(facts: &Facts) -> BTreeMap<String, i64> {
    let mut reasons = BTreeMap::new();
    for ((_, _, reason), count) in &facts.archive.rejections {
        *reasons.entry(reason.clone()).or_insert(0) += count;
    }
    reasons
}

fn events_per_second(facts: &Facts) -> f64 {
    let archive = &facts.archive;
    if archive.events_seconds > 0.0 {
        archive.events_in as f64 / archive.events_seconds
    } else {
        0.0
    }
}
