//! The loop of a run: inject faults, repair them, wait for recovery, and repeat.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::Utc;

use crate::args::Args;
use crate::fault_injection::{self, InjectedFault};
use crate::fault_schedule::{FaultGroup, Schedule};
use crate::sampler::{Sample, Sampler};
use crate::takeovers::Incident;
use crate::testbed::Testbed;
use nixfleet_harness::progress_printer::Printer;

/// Longest recovery time after the repair of a group.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two recovery checks.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Delay of the second fault of a group.
const SECOND_FAULT_DELAY: Duration = Duration::from_millis(700);

/// Injected groups of faults, and violations.
#[derive(Debug, Default)]
pub struct InjectionLog {
    /// Groups in the order of their injection.
    pub incidents: Vec<Incident>,
    /// Violations, for people.
    pub faults: Vec<String>,
}

/// Injects groups until the duration is over and every essential kind was injected.
///
/// # Errors
/// When a fault cannot be injected or repaired.
pub async fn run(
    testbed: &mut Testbed,
    sampler: &Sampler,
    (args, printer): (&Args, Printer),
) -> Result<InjectionLog> {
    let mut schedule = Schedule::new(args.seed, &args.only);
    let mut injection_log = InjectionLog::default();
    let start = Instant::now();
    loop {
        let must = schedule.is_first_round();
        let next = schedule.next().context("no fault has a wanted name")?;
        let end = start.elapsed() + next.duration() + next.pause;
        if !must && end > args.duration() {
            break;
        }
        inject_group(testbed, sampler, (&next, printer), &mut injection_log).await?;
    }
    testbed
        .supervise_for(args.duration().saturating_sub(start.elapsed()))
        .await?;
    if let Some(last) = injection_log.incidents.last_mut() {
        last.until = Utc::now();
    }
    Ok(injection_log)
}

async fn inject_group(
    testbed: &mut Testbed,
    sampler: &Sampler,
    (next, printer): (&FaultGroup, Printer),
    injection_log: &mut InjectionLog,
) -> Result<()> {
    let from = Utc::now();
    if let Some(last) = injection_log.incidents.last_mut() {
        last.until = from;
    }
    let mut injected: Vec<(Instant, InjectedFault)> = Vec::new();
    for fault in &next.faults {
        if !injected.is_empty() {
            testbed.supervise_for(SECOND_FAULT_DELAY).await?;
        }
        let until = Instant::now() + fault.duration;
        let there = fault_injection::inject(testbed, *fault).await?;
        printer.timed_line(&there.fault().to_string());
        injected.push((until, there));
    }
    let interrupted = injected
        .iter()
        .flat_map(|(_, injected)| injected.interrupted.clone());
    let interrupted = interrupted.collect();
    injected.sort_by_key(|(until, _)| *until);
    for (until, injected) in injected {
        testbed
            .supervise_for(until.saturating_duration_since(Instant::now()))
            .await?;
        let what = injected.fault().to_string();
        let repaired = injected.repair(testbed).await;
        let faults = repaired.with_context(|| format!("repairing: {what}"))?;
        injection_log.faults.extend(faults);
    }
    let recovery_time = wait_for_recovery(testbed, sampler).await?;
    match recovery_time {
        Ok(after) => printer.timed_line(&format!("  recovered after {:.1} s", after.as_secs_f64())),
        Err(ref reason) => {
            let timeout = RECOVERY_TIMEOUT.as_secs();
            let fault = format!(
                "{}: not recovered {timeout} s after the repair: {reason}",
                next.name()
            );
            printer.timed_line(&fault);
            injection_log.faults.push(fault);
        }
    }
    injection_log.incidents.push(Incident {
        name: next.name(),
        faults: next.faults.len(),
        from,
        until: Utc::now(),
        recovery_time: recovery_time.ok(),
        interrupted,
    });
    testbed.supervise_for(next.pause).await
}

/// Waits until every process is ready, tables and archive have reached the ends of the logs, and events are
/// accepted.
async fn wait_for_recovery(
    testbed: &mut Testbed,
    sampler: &Sampler,
) -> Result<Result<Duration, String>> {
    let (start, repaired) = (Instant::now(), Utc::now());
    let mut first: Option<Sample> = None;
    loop {
        let last = sampler.last().filter(|sample| sample.at > repaired);
        let complete =
            last.filter(|s| s.events.is_some() && s.streams.is_some() && s.cursors.is_some());
        let reason = match (complete, &first) {
            (None, _) => Some("hosts, nats-server or Postgres did not respond".to_owned()),
            (Some(sample), None) => {
                first = Some(sample);
                Some("no second sample".to_owned())
            }
            (Some(last), Some(first)) => missing_progress(first, &last),
        };
        let reason = reason.or_else(|| testbed.not_ready());
        let Some(reason) = reason else {
            return Ok(Ok(start.elapsed()));
        };
        if start.elapsed() > RECOVERY_TIMEOUT {
            return Ok(Err(reason));
        }
        testbed.supervise_for(POLL_INTERVAL).await?;
    }
}

/// The first log that has not reached tables or archive since the first sample.
fn missing_progress(first: &Sample, last: &Sample) -> Option<String> {
    let (before, _) = first.events?;
    let (accepted, pending) = last.events?;
    if accepted == before && pending > 0 {
        return Some(format!("no event is accepted, {pending} wait"));
    }
    let (streams, cursors) = (first.streams.as_ref()?, last.cursors.as_ref()?);
    let heads = streams
        .iter()
        .map(|(stream, state)| (stream, &state.last_seq));
    for (stream, head) in heads.filter(|(_, head)| **head > 0) {
        let partition = stream
            .rsplit_once("_OUT_")
            .and_then(|(_, p)| p.parse().ok());
        let applied = partition.map(|partition: u16| cursors.applied.get(&partition));
        if let Some(position) = applied
            && position < Some(head)
        {
            return Some(format!("{stream} is applied up to {position:?} of {head}"));
        }
        let is_log = stream.contains("_OUT_") || stream.contains("_IN_");
        let archived = cursors.archived.get(stream);
        if is_log && archived < Some(head) {
            return Some(format!("{stream} is archived up to {archived:?} of {head}"));
        }
    }
    None
}
