//! The run: break, mend, wait until all is well, and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::Utc;

use crate::args::Args;
use crate::incident::Incident;
use crate::sampler::{Sample, Sampler};
use crate::schedule::{Schedule, Strike};
use crate::strike::{self, Struck};
use crate::world::World;
use nixfleet_harness::say::Say;

/// Longest time for everything to be well again after a strike was mended.
const BACK_PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions whether all is well.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The second of two faults that meet comes this much later.
const JOIN_AFTER: Duration = Duration::from_millis(700);

/// Strikes as they happened, and what must not have.
#[derive(Debug, Default)]
pub struct Course {
    /// In order.
    pub incidents: Vec<Incident>,
    /// What must not have happened.
    pub faults: Vec<String>,
}

/// Strikes until the time is over and every essential kind has happened.
///
/// # Errors
/// When something cannot be broken or mended.
pub async fn run(
    world: &mut World,
    sampler: &Sampler,
    (args, say): (&Args, Say),
) -> Result<Course> {
    let mut schedule = Schedule::new(args.seed, &args.only);
    let mut course = Course::default();
    let start = Instant::now();
    loop {
        let must = schedule.is_first_round();
        let next = schedule.next().context("no fault has a wanted name")?;
        let end = start.elapsed() + next.hold() + next.pause;
        if !must && end > args.duration() {
            break;
        }
        once(world, sampler, (&next, say), &mut course).await?;
    }
    world
        .pass(args.duration().saturating_sub(start.elapsed()))
        .await?;
    if let Some(last) = course.incidents.last_mut() {
        last.until = Utc::now();
    }
    Ok(course)
}

async fn once(
    world: &mut World,
    sampler: &Sampler,
    (next, say): (&Strike, Say),
    course: &mut Course,
) -> Result<()> {
    let from = Utc::now();
    if let Some(last) = course.incidents.last_mut() {
        last.until = from;
    }
    let mut struck: Vec<(Instant, Struck)> = Vec::new();
    for fault in &next.faults {
        if !struck.is_empty() {
            world.pass(JOIN_AFTER).await?;
        }
        let until = Instant::now() + fault.hold;
        let there = strike::strike(world, *fault).await?;
        say.now(&there.fault().to_string());
        struck.push((until, there));
    }
    let victims = struck.iter().flat_map(|(_, struck)| struck.victims.clone());
    let victims = victims.collect();
    struck.sort_by_key(|(until, _)| *until);
    for (until, struck) in struck {
        world
            .pass(until.saturating_duration_since(Instant::now()))
            .await?;
        let what = struck.fault().to_string();
        let mended = struck.mend(world).await;
        let faults = mended.with_context(|| format!("mending: {what}"))?;
        course.faults.extend(faults);
    }
    let back = back(world, sampler).await?;
    match back {
        Ok(after) => say.now(&format!("  well again after {:.1} s", after.as_secs_f64())),
        Err(ref reason) => {
            let patience = BACK_PATIENCE.as_secs();
            let fault = format!("{}: not well {patience} s after: {reason}", next.name());
            say.now(&fault);
            course.faults.push(fault);
        }
    }
    course.incidents.push(Incident {
        name: next.name(),
        faults: next.faults.len(),
        from,
        until: Utc::now(),
        back: back.ok(),
        victims,
    });
    world.pass(next.pause).await
}

/// Waits until every process is ready, what was in the logs has reached the tables and the archive,
/// and events are accepted.
async fn back(world: &mut World, sampler: &Sampler) -> Result<Result<Duration, String>> {
    let (start, mended) = (Instant::now(), Utc::now());
    let mut first: Option<Sample> = None;
    loop {
        let last = sampler.last().filter(|sample| sample.at > mended);
        let whole =
            last.filter(|s| s.events.is_some() && s.streams.is_some() && s.reached.is_some());
        let reason = match (whole, &first) {
            (None, _) => Some("somebody does not answer".to_owned()),
            (Some(sample), None) => {
                first = Some(sample);
                Some("no second look".to_owned())
            }
            (Some(last), Some(first)) => waits_for(first, &last),
        };
        let reason = reason.or_else(|| world.not_ready());
        let Some(reason) = reason else {
            return Ok(Ok(start.elapsed()));
        };
        if start.elapsed() > BACK_PATIENCE {
            return Ok(Err(reason));
        }
        world.pass(LOOK_EVERY).await?;
    }
}

/// What of the first look has not arrived at the last one.
fn waits_for(first: &Sample, last: &Sample) -> Option<String> {
    let (before, _) = first.events?;
    let (accepted, pending) = last.events?;
    if accepted == before && pending > 0 {
        return Some(format!("no event is accepted, {pending} wait"));
    }
    let (streams, reached) = (first.streams.as_ref()?, last.reached.as_ref()?);
    let heads = streams
        .iter()
        .map(|(stream, state)| (stream, &state.last_seq));
    for (stream, head) in heads.filter(|(_, head)| **head > 0) {
        let partition = stream
            .rsplit_once("_OUT_")
            .and_then(|(_, p)| p.parse().ok());
        let applied = partition.map(|partition: u16| reached.applied.get(&partition));
        if let Some(position) = applied
            && position < Some(head)
        {
            return Some(format!("{stream} is applied up to {position:?} of {head}"));
        }
        let is_log = stream.contains("_OUT_") || stream.contains("_IN_");
        let archived = reached.archived.get(stream);
        if is_log && archived < Some(head) {
            return Some(format!("{stream} is archived up to {archived:?} of {head}"));
        }
    }
    None
}
