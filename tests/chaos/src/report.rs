//! The end: tables for people, or JSON for machines.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use comfy_table::Table;
use serde_json::{Value, json};

use crate::args::Args;
use crate::incident::{Incident, LEADER, Takeover};
use crate::publisher::Published;
use crate::strike::How;
use crate::verdict::Verdict;
use crate::waits::Waits;
use nixfleet_harness::say::Say;

/// All strikes of one name.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    count: u32,
    waits: Waits,
    back: Duration,
}

/// Prints the result.
///
/// # Errors
/// Never, in practice: the result is data.
pub fn print(verdict: &Verdict, published: &Published, (args, say): (&Args, Say)) -> Result<()> {
    say.line("");
    say.line(&faults(verdict).to_string());
    say.line(&handovers(verdict).to_string());
    say.line(&sums(verdict, published).to_string());
    for check in &verdict.checks {
        match &check.fault {
            None => say.line(&format!("ok    {}", check.name)),
            Some(fault) => say.line(&format!("FAIL  {}: {fault}", check.name)),
        }
    }
    if args.json {
        let document = document(verdict, published, args);
        println!("{}", serde_json::to_string_pretty(&document)?);
    }
    Ok(())
}

fn rows(verdict: &Verdict) -> BTreeMap<&str, Row> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for (incident, waits) in verdict.incidents.iter().zip(&verdict.waits) {
        let Incident { name, back, .. } = incident;
        let row = rows.entry(name).or_default();
        row.count += 1;
        row.waits = row.waits.max(*waits);
        row.back = row.back.max(back.unwrap_or(Duration::MAX));
    }
    rows
}

fn seconds(time: Duration) -> String {
    match time {
        Duration::ZERO => "-".to_owned(),
        Duration::MAX => "never".to_owned(),
        time => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// Longest waits by kind of fault.
fn faults(verdict: &Verdict) -> Table {
    let mut table = Table::new();
    table.set_header([
        "fault",
        "times",
        "no event accepted",
        "entry to outcome",
        "outcome to rows",
        "log to archive",
        "well after mending",
    ]);
    for (name, row) in rows(verdict) {
        table.add_row([
            name.to_owned(),
            row.count.to_string(),
            seconds(row.waits.events),
            seconds(row.waits.fold),
            seconds(row.waits.apply),
            seconds(row.waits.archive),
            seconds(row.back),
        ]);
    }
    table
}

/// Takeovers by how the owner went.
fn handovers(verdict: &Verdict) -> Table {
    let mut table = Table::new();
    table.set_header([
        "takeover from an owner that was",
        "times",
        "median",
        "longest",
    ]);
    for (name, how) in [
        ("killed", How::Killed),
        ("paused", How::Paused),
        ("stopped", How::Stopped),
    ] {
        for (what, leader) in [("partition", false), ("leader", true)] {
            let mut times = times(&verdict.takeovers, how, leader);
            times.sort_unstable();
            table.add_row([
                format!("{name}, {what}"),
                times.len().to_string(),
                precise(times.get(times.len() / 2)),
                precise(times.last()),
            ]);
        }
    }
    table
}

fn precise(time: Option<&Duration>) -> String {
    match time {
        None => "-".to_owned(),
        Some(&Duration::MAX) => "never".to_owned(),
        Some(time) => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// Of single faults: what happens while a server is away too says nothing.
fn times(takeovers: &[Takeover], how: How, leader: bool) -> Vec<Duration> {
    takeovers
        .iter()
        .filter(|takeover| takeover.how == how && takeover.faults == 1)
        .filter(|takeover| (takeover.what == LEADER) == leader)
        .map(|takeover| takeover.took.unwrap_or(Duration::MAX))
        .collect()
}

fn sums(verdict: &Verdict, published: &Published) -> Table {
    let accounts = &verdict.accounts;
    let archive = &verdict.facts.archive;
    let totals = &verdict.facts.swarm.totals;
    let mut table = Table::new();
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("hosts", verdict.facts.swarm.hosts.len().to_string());
    row(
        "releases",
        format!("{} good, {} faulty", published.good, published.faulty),
    );
    row("publications repeated", published.retries.to_string());
    row("rollouts", verdict.facts.rollouts.len().to_string());
    row("faults", verdict.incidents.len().to_string());
    row("agents died", totals.crashes.to_string());
    row(
        "requests without an answer",
        totals.network_errors.to_string(),
    );
    row("log entries", archive.entries.to_string());
    let sizes = &verdict.log_sizes;
    row("written to all logs", mib(sizes.written()));
    row("  most in one log at a time", mib(sizes.largest()));
    row("  checkpoints", sizes.checkpoints().to_string());
    row("  messages trimmed", sizes.trimmed().to_string());
    row("events acknowledged", accounts.acknowledged.to_string());
    row("  in the log", accounts.entries.to_string());
    row("  applied", accounts.applied.to_string());
    row("  rejected with a reason", accounts.rejected.to_string());
    row("events lost", accounts.lost.len().to_string());
    row("events applied twice", accounts.twice.len().to_string());
    let verified = &verdict.verified;
    row(
        "outcomes replayed from the archive",
        verified.outcomes.to_string(),
    );
    row("  rows compared", verified.rows.to_string());
    row("  differences", verified.differences.to_string());
    for ((event, producer, reason), count) in &archive.rejections {
        row(
            &format!("rejected: {event} of {producer}, {reason}"),
            count.to_string(),
        );
    }
    table
}

fn mib(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / (1024.0 * 1024.0))
}

fn document(verdict: &Verdict, published: &Published, args: &Args) -> Value {
    let accounts = &verdict.accounts;
    let faults: Vec<Value> = rows(verdict)
        .into_iter()
        .map(|(name, row)| {
            json!({
                "fault": name,
                "times": row.count,
                "noEventAcceptedMs": millis(row.waits.events),
                "entryToOutcomeMs": millis(row.waits.fold),
                "outcomeToRowsMs": millis(row.waits.apply),
                "logToArchiveMs": millis(row.waits.archive),
                "wellAfterMs": millis(row.back),
            })
        })
        .collect();
    let takeovers: Vec<Value> = verdict
        .takeovers
        .iter()
        .map(|takeover| {
            json!({
                "fault": takeover.incident,
                "what": takeover.what,
                "how": format!("{:?}", takeover.how).to_lowercase(),
                "tookMs": takeover.took.and_then(millis),
                "judged": takeover.faults == 1,
            })
        })
        .collect();
    let checks: Vec<Value> = verdict
        .checks
        .iter()
        .map(|check| json!({"name": check.name, "holds": check.fault.is_none(), "fault": check.fault}))
        .collect();
    json!({
        "ok": verdict.holds(),
        "minutes": args.minutes,
        "seed": args.seed,
        "hosts": args.hosts,
        "releases": { "good": published.good, "faulty": published.faulty },
        "rollouts": verdict.facts.rollouts.len(),
        "logEntries": verdict.facts.archive.entries,
        "logs": {
            "limitMib": args.log_mib,
            "writtenBytes": verdict.log_sizes.written(),
            "largestBytes": verdict.log_sizes.largest(),
            "checkpoints": verdict.log_sizes.checkpoints(),
            "trimmedMessages": verdict.log_sizes.trimmed(),
        },
        "events": {
            "acknowledged": accounts.acknowledged,
            "inLog": accounts.entries,
            "applied": accounts.applied,
            "rejected": accounts.rejected,
            "lost": accounts.lost.len(),
            "appliedTwice": accounts.twice.len(),
        },
        "verify": {
            "outcomes": verdict.verified.outcomes,
            "rows": verdict.verified.rows,
            "differences": verdict.verified.differences,
        },
        "faults": faults,
        "takeovers": takeovers,
        "checks": checks,
    })
}

/// `None` stands for never.
fn millis(time: Duration) -> Option<u64> {
    (time != Duration::MAX).then(|| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
