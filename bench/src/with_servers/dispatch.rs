//! Stage `dispatch`: from the last host of a wave to the agents of the next one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use chrono::Utc;
use futures::future::try_join_all;
use nixfleet_bus::decode_input;
use nixfleet_harness::Service;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, Minutes, PlanAction, Timestamp};

use super::agent_events::AgentEvents;
use super::control_plane::ControlPlane;
use super::https_client;
use super::load_generator::Agent;
use super::partition_logs::{frames_of, messages_of};
use super::postgres_client::connect;
use super::release::{self, Release, Shape};
use super::{Options, progress};
use crate::measurements::{Measurement, Target, median};

/// Largest number of waiting agents.
const HOSTS_MAX: usize = 2_000;
/// Target in milliseconds until 99 % of the agents have their dispatch.
const TARGET_MS: f64 = 100.0;
/// Time for the polls to be waiting before the wave ends.
const SETTLE: Duration = Duration::from_secs(2);
/// Measurements of the baseline per round.
const TRIPS: usize = 100;

/// Milliseconds from the claim of a wave's last host to the dispatches of the next wave.
pub async fn run(options: Options) -> Result<Vec<Measurement>> {
    let hosts = options.hosts.min(HOSTS_MAX);
    let shape = Shape {
        waves: vec![1, hosts],
        soak: Minutes::from_minutes(0),
    };
    let release = release::build(&shape)?;
    let (mut halves, mut tails, mut baselines) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let (half, tail, baseline) = measure(&release).await?;
        progress!(
            "dispatch {round}/{}: p50 {half:.1} ms, p99 {tail:.1} ms, one append and one commit \
             {baseline:.1} ms",
            options.rounds
        );
        halves.push(half);
        tails.push(tail);
        baselines.push(baseline);
    }
    let name = "one append and one commit";
    let tail = Measurement::new("dispatch", "p99 from claim to dispatch", "ms", tails).of(hosts);
    let half = Measurement::new("dispatch", "p50 from claim to dispatch", "ms", halves).of(hosts);
    Ok(vec![
        half.against(name, baselines.clone()),
        tail.against(name, baselines)
            .target(Target::AtMost(TARGET_MS)),
    ])
}

async fn measure(release: &Release) -> Result<(f64, f64, f64)> {
    let control_plane = ControlPlane::start(&[
        Service::Applier,
        Service::Eventlog,
        Service::Reducer,
        Service::Planner,
        Service::Console,
    ])
    .await?;
    let baseline = round_trip(&control_plane).await?;
    let hosts = 0..release.fleet.len();
    let events = hosts
        .map(|number| AgentEvents::of(&release.fleet, number))
        .collect();
    let mut agents = control_plane.agents(events).await?;
    let mut operator = control_plane.operator().await?;
    https_client::publish(&mut operator, release::upload(release)?).await?;
    control_plane.wait_for_release().await?;
    let mut first = agents.remove(0);
    first
        .dispatch()
        .await
        .context("dispatching the first wave")?;
    let waiting = agents.into_iter().map(|agent| tokio::spawn(wait(agent)));
    let waiting: Vec<_> = waiting.collect();
    for _ in 1..8 {
        first.request(1).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let meter = control_plane.meter()?;
    let (claimed, claimed_at) = (Instant::now(), Utc::now());
    first.claim().await?;
    let (mut latencies, mut connected) = (Vec::new(), Vec::new());
    for held in try_join_all(waiting).await? {
        let (agent, held) = held?;
        connected.push(agent);
        let held = held.checked_duration_since(claimed);
        let held = held.context("a dispatch precedes its wave")?;
        latencies.push(held.as_secs_f64() * 1_000.0);
    }
    progress!("dispatch: {}", meter.cores()?);
    drop(connected);
    stations(&control_plane, claimed_at).await?;
    control_plane.stop()?;
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    ensure!(!latencies.is_empty(), "no agent waited for a dispatch");
    Ok((at(0.50), at(0.99), baseline))
}

/// Prints when the dispatches were in the input log and their outcomes in the output log.
async fn stations(control_plane: &ControlPlane, claimed_at: Timestamp) -> Result<()> {
    let bus = control_plane.testbed.bus().await?;
    let partition = Partition::new(0);
    let mut decided = Vec::new();
    for message in messages_of(&bus, &bus.names().input_stream(partition)).await? {
        if decode_input(&message)?.entries.iter().any(is_dispatch) {
            decided.push(message.time);
        }
    }
    let folded = frames_of(&bus, partition).await?.into_iter();
    let folded = folded.filter(|(_, frame)| {
        let mut outcomes = frame.outcomes.iter();
        outcomes.any(|outcome| &*outcome.subject.entry == "QueueDispatch")
    });
    let span = |times: Vec<Timestamp>| {
        let since = |at: &Timestamp| (*at - claimed_at).num_microseconds().unwrap_or(0) as f64;
        let (first, last) = (times.first().map(since), times.last().map(since));
        let [first, last] = [first, last].map(|micros| micros.unwrap_or(0.0) / 1_000.0);
        format!("{first:.1} to {last:.1} ms in {} frames", times.len())
    };
    let later = |at: &Timestamp| *at > claimed_at;
    progress!(
        "dispatch: decided {}, folded {}",
        span(decided.into_iter().filter(later).collect()),
        span(
            folded
                .map(|(message, _)| message.time)
                .filter(later)
                .collect()
        )
    );
    bus.close().await;
    Ok(())
}

fn is_dispatch(entry: &Entry) -> bool {
    let EntryBody::Plan { action, .. } = &entry.body else {
        return false;
    };
    matches!(action, PlanAction::QueueDispatch { .. })
}

/// Waits for the dispatch of an agent and returns the time of its arrival. The connection stays open, as
/// that of an agent does.
async fn wait(mut agent: Agent) -> Result<(Agent, Instant)> {
    agent.dispatch().await?;
    Ok((agent, Instant::now()))
}

/// Milliseconds of an append to a stream and a commit, one after the other.
async fn round_trip(control_plane: &ControlPlane) -> Result<f64> {
    let bus = control_plane.testbed.other_bus().await?;
    let wildcard = bus.names().input_wildcard(Partition::new(0));
    let context = jetstream::new(async_nats::connect(control_plane.testbed.nats.url()).await?);
    let client = connect(&control_plane.database.url).await?;
    client
        .batch_execute("CREATE TABLE nixfleet.trips (n integer)")
        .await?;
    let insert = client
        .prepare("INSERT INTO nixfleet.trips VALUES (1)")
        .await?;
    let mut took = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let started = Instant::now();
        let ack = context.publish(wildcard.replace('>', "event.a.b"), "{}".into());
        ack.await?.await?;
        client.execute(&insert, &[]).await?;
        took.push(started.elapsed().as_secs_f64() * 1_000.0);
    }
    bus.close().await;
    Ok(median(&took))
}
