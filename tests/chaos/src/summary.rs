//! Summary of a run: tables for people, JSON for machines.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use comfy_table::Table;
use serde_json::{Value, json};

use crate::args::Args;
use crate::evaluation::Evaluation;
use crate::fault_injection::Interruption;
use crate::latencies::Latencies;
use crate::release_publisher::Published;
use crate::takeovers::{Incident, LEADER, Takeover};
use nixfleet_audit::Check;
use nixfleet_harness::progress_printer::Printer;

/// Totals of all groups of one name.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    count: u32,
    latencies: Latencies,
    recovery_time: Duration,
}

/// Prints the result.
///
/// # Errors
/// Never, in practice: the result is data.
pub fn print(
    evaluation: &Evaluation,
    published: &Published,
    (args, printer): (&Args, Printer),
) -> Result<()> {
    printer.line("");
    printer.line(&fault_table(evaluation).to_string());
    printer.line(&takeover_table(evaluation).to_string());
    printer.line(&totals_table(evaluation, published).to_string());
    for check in &evaluation.checks {
        printer.line(&check.line());
    }
    if args.run.json {
        let document = document(evaluation, published, args);
        println!("{}", serde_json::to_string_pretty(&document)?);
    }
    Ok(())
}

fn rows(evaluation: &Evaluation) -> BTreeMap<&str, Row> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for (incident, latencies) in evaluation.incidents.iter().zip(&evaluation.latencies) {
        let Incident {
            name,
            recovery_time,
            ..
        } = incident;
        let row = rows.entry(name).or_default();
        row.count += 1;
        row.latencies = row.latencies.max(*latencies);
        row.recovery_time = row
            .recovery_time
            .max(recovery_time.unwrap_or(Duration::MAX));
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

/// Longest latencies by kind of fault.
fn fault_table(evaluation: &Evaluation) -> Table {
    let mut table = Table::new();
    table.set_header([
        "fault",
        "times",
        "no event accepted",
        "entry to outcome",
        "outcome to rows",
        "log to archive",
        "recovered after repair",
    ]);
    for (name, row) in rows(evaluation) {
        table.add_row([
            name.to_owned(),
            row.count.to_string(),
            seconds(row.latencies.events),
            seconds(row.latencies.fold),
            seconds(row.latencies.apply),
            seconds(row.latencies.archive),
            seconds(row.recovery_time),
        ]);
    }
    table
}

/// Takeovers by interruption of the previous owner.
fn takeover_table(evaluation: &Evaluation) -> Table {
    let mut table = Table::new();
    table.set_header([
        "takeover from an owner that was",
        "times",
        "median",
        "longest",
    ]);
    for (name, interruption) in [
        ("killed", Interruption::Killed),
        ("paused", Interruption::Paused),
        ("stopped", Interruption::Stopped),
    ] {
        for (what, leader) in [("partition", false), ("leader", true)] {
            let mut times = times(&evaluation.takeovers, interruption, leader);
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

/// Takeover times of single faults; a second fault delays takeovers without a bound.
fn times(takeovers: &[Takeover], interruption: Interruption, leader: bool) -> Vec<Duration> {
    takeovers
        .iter()
        .filter(|takeover| takeover.interruption == interruption && takeover.faults == 1)
        .filter(|takeover| (takeover.what == LEADER) == leader)
        .map(|takeover| takeover.took.unwrap_or(Duration::MAX))
        .collect()
}

fn totals_table(evaluation: &Evaluation, published: &Published) -> Table {
    let accounting = &evaluation.accounting;
    let archive = &evaluation.observed.archive;
    let totals = &evaluation.observed.swarm.totals;
    let mut table = Table::new();
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("hosts", evaluation.observed.swarm.hosts.len().to_string());
    row(
        "releases",
        format!("{} good, {} faulty", published.good, published.faulty),
    );
    row("publications repeated", published.retries.to_string());
    row("rollouts", evaluation.observed.rollouts.len().to_string());
    row("faults", evaluation.incidents.len().to_string());
    row("agents died", totals.crashes.to_string());
    row(
        "requests without a response",
        totals.network_errors.to_string(),
    );
    row("log entries", archive.entries.to_string());
    let sizes = &evaluation.log_sizes;
    row("written to all logs", mib(sizes.written()));
    row("  most in one log at a time", mib(sizes.largest()));
    row("  checkpoints", sizes.checkpoints().to_string());
    row("  messages trimmed", sizes.trimmed().to_string());
    row("events acknowledged", accounting.acknowledged.to_string());
    row("  in the log", accounting.entries.to_string());
    row("  applied", accounting.applied.to_string());
    row("  rejected with a reason", accounting.rejected.to_string());
    row("events lost", accounting.lost.len().to_string());
    row(
        "events applied twice",
        accounting.applied_twice.len().to_string(),
    );
    if let Some(flood) = &evaluation.flood {
        row(
            "events of the flooding host stored",
            flood.stored.to_string(),
        );
        for (code, count) in &flood.refused {
            row(&format!("  refused: {code}"), count.to_string());
        }
        row("  without a response", flood.failed.to_string());
    }
    let verify_result = &evaluation.verify_result;
    row(
        "outcomes replayed from the archive",
        verify_result.outcomes.to_string(),
    );
    row("  rows compared", verify_result.rows.to_string());
    row("  differences", verify_result.differences.to_string());
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

fn document(evaluation: &Evaluation, published: &Published, args: &Args) -> Value {
    let accounting = &evaluation.accounting;
    let faults: Vec<Value> = rows(evaluation)
        .into_iter()
        .map(|(name, row)| {
            json!({
                "fault": name,
                "times": row.count,
                "noEventAcceptedMs": millis(row.latencies.events),
                "entryToOutcomeMs": millis(row.latencies.fold),
                "outcomeToRowsMs": millis(row.latencies.apply),
                "logToArchiveMs": millis(row.latencies.archive),
                "wellAfterMs": millis(row.recovery_time),
            })
        })
        .collect();
    let takeovers: Vec<Value> = evaluation
        .takeovers
        .iter()
        .map(|takeover| {
            json!({
                "fault": takeover.incident,
                "what": takeover.what,
                "how": format!("{:?}", takeover.interruption).to_lowercase(),
                "tookMs": takeover.took.and_then(millis),
                "judged": takeover.faults == 1,
            })
        })
        .collect();
    let checks = evaluation.checks.iter().map(Check::document);
    let checks: Vec<Value> = checks.collect();
    json!({
        "ok": evaluation.holds(),
        "minutes": args.minutes,
        "seed": args.seed,
        "hosts": args.hosts,
        "releases": { "good": published.good, "faulty": published.faulty },
        "rollouts": evaluation.observed.rollouts.len(),
        "logEntries": evaluation.observed.archive.entries,
        "logs": {
            "limitMib": args.log_mib,
            "writtenBytes": evaluation.log_sizes.written(),
            "largestBytes": evaluation.log_sizes.largest(),
            "checkpoints": evaluation.log_sizes.checkpoints(),
            "trimmedMessages": evaluation.log_sizes.trimmed(),
        },
        "events": {
            "acknowledged": accounting.acknowledged,
            "inLog": accounting.entries,
            "applied": accounting.applied,
            "rejected": accounting.rejected,
            "lost": accounting.lost.len(),
            "appliedTwice": accounting.applied_twice.len(),
        },
        "verify": {
            "outcomes": evaluation.verify_result.outcomes,
            "rows": evaluation.verify_result.rows,
            "differences": evaluation.verify_result.differences,
        },
        "flood": evaluation.flood.as_ref().map(|flood| json!({
            "stored": flood.stored,
            "refused": flood.refused,
            "withoutResponse": flood.failed,
        })),
        "faults": faults,
        "takeovers": takeovers,
        "checks": checks,
    })
}

/// `None` stands for never.
fn millis(time: Duration) -> Option<u64> {
    (time != Duration::MAX).then(|| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
