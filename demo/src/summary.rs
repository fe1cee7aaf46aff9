//! The result as a table or JSON.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::Table;
use nixfleet_audit::{Check, ObservedState};
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::scenario::ScenarioResult;
use crate::state_digest;
use nixfleet_harness::progress_printer::Printer;

pub fn print(result: &ScenarioResult, args: &Args, printer: &Printer) -> Result<()> {
    printer.heading("Result");
    printer.line(&table(result).to_string());
    for check in &result.checks {
        printer.line(&check.line());
    }
    if args.run.json {
        println!("{}", serde_json::to_string_pretty(&document(result, args))?);
    }
    Ok(())
}

fn table(result: &ScenarioResult) -> Table {
    let observed = &result.observed;
    let archive = &observed.archive;
    let latency = &observed.swarm.dispatch_latency_ms;
    let mut table = Table::new();
    table.set_header(["", "value"]);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("hosts", observed.swarm.hosts.len().to_string());
    for (state, count) in hosts_by_state(observed) {
        row(&format!("  {state}"), count.to_string());
    }
    row("events in", archive.events_in.to_string());
    row(
        "events/s, average",
        format!("{:.1}", events_per_second(observed)),
    );
    row("events/s, busiest second", archive.events_peak.to_string());
    row("dispatch latency p50", format!("{} ms", latency.p50));
    row("dispatch latency p99", format!("{} ms", latency.p99));
    row("log entries", archive.entries.to_string());
    for (writer, count) in &archive.writers {
        row(&format!("  by {writer}"), count.to_string());
    }
    let rejections = by_reason(observed);
    row("rejections", rejections.values().sum::<i64>().to_string());
    for (reason, count) in rejections {
        row(&format!("  {reason}"), count.to_string());
    }
    row("quarantined", observed.quarantines.join(", "));
    row(
        "rollout time",
        format!("{:.1} s", result.rollout_time.as_secs_f64()),
    );
    row(
        "total time",
        format!("{:.1} s", result.total_time.as_secs_f64()),
    );
    table
}

fn document(result: &ScenarioResult, args: &Args) -> Value {
    let observed = &result.observed;
    let archive = &observed.archive;
    let rejections: Vec<Value> = archive
        .rejections
        .iter()
        .map(|((event, producer, reason), count)| {
            json!({"event": event, "producer": producer, "reason": reason, "count": count})
        })
        .collect();
    let checks = result.checks.iter().map(Check::document);
    let checks: Vec<Value> = checks.collect();
    json!({
        "ok": result.holds(),
        "hosts": observed.swarm.hosts.len(),
        "seed": args.seed,
        "instances": args.instances,
        "hostsByState": hosts_by_state(observed),
        "eventsIn": archive.events_in,
        "eventsPerSecond": events_per_second(observed),
        "eventsPerSecondPeak": archive.events_peak,
        "dispatchLatencyMs": observed.swarm.dispatch_latency_ms,
        "logEntries": archive.entries,
        "entriesByWriter": archive.writers,
        "rejections": rejections,
        "quarantines": observed.quarantines,
        "swarm": observed.swarm.totals,
        "rolloutSeconds": result.rollout_time.as_secs_f64(),
        "totalSeconds": result.total_time.as_secs_f64(),
        "stateDigest": state_digest::of(observed),
        "checks": checks,
        "rollouts": rollouts(observed),
    })
}

fn rollouts(observed: &ObservedState) -> Value {
    let states: Map<String, Value> = observed
        .rollouts
        .iter()
        .map(|(id, row)| (id.clone(), Value::from(row.state.clone())))
        .collect();
    Value::from(states)
}

fn hosts_by_state(observed: &ObservedState) -> BTreeMap<String, usize> {
    let current = observed.current_rollouts();
    let mut states = BTreeMap::new();
    for ((rollout_id, _), row) in &observed.hosts {
        if current.contains(rollout_id.as_str()) {
            *states.entry(row.state.clone()).or_insert(0) += 1;
        }
    }
    states
}

fn by_reason(observed: &ObservedState) -> BTreeMap<String, i64> {
    let mut reasons = BTreeMap::new();
    for ((_, _, reason), count) in &observed.archive.rejections {
        *reasons.entry(reason.clone()).or_insert(0) += count;
    }
    reasons
}

fn events_per_second(observed: &ObservedState) -> f64 {
    let archive = &observed.archive;
    if archive.events_seconds > 0.0 {
        archive.events_in as f64 / archive.events_seconds
    } else {
        0.0
    }
}
