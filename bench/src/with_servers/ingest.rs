//! Stages `ingest-single` and `ingest-array`: events over mutual TLS, acknowledged once they are in the
//! log.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use nixfleet_bus::{Bus, decode_input};
use nixfleet_harness::ports;
use nixfleet_proto::subject::Partition;

use super::agent_events::AgentEvents;
use super::control_plane::ControlPlane;
use super::gateway_baseline;
use super::load_generator::{self, LoadPlan, LoadResult};
use super::partition_logs::{Size, messages_of, size_measurement};
use super::release::{self, Release};
use super::testbed::Testbed;
use super::{Options, progress};
use crate::measurements::{Measurement, Target};
use crate::synthetic_fleet::SyntheticFleet;

/// Target: share of the rate of the server without a log.
const TARGET: f64 = 0.60;
/// Target in milliseconds of the 99th percentile of responses at half the largest rate, with one event per
/// request.
const LATENCY_TARGET_MS: f64 = 25.0;

/// A load: single events, or arrays of them.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub stage: &'static str,
    pub events: usize,
    /// Agents, each with its certificate and its connection; all of them send at once.
    pub agents: usize,
}

/// A load of one event per request.
pub const SINGLE: Kind = Kind {
    stage: "ingest-single",
    events: 1,
    agents: 1_000,
};
/// A load of full arrays, with no more agents than the queue of a partition has room for.
pub const ARRAY: Kind = Kind {
    stage: "ingest-array",
    events: 100,
    agents: 128,
};

#[derive(Default)]
struct Samples {
    rates: Vec<f64>,
    http: Vec<f64>,
    log: Vec<f64>,
    halves: Vec<f64>,
    tails: Vec<f64>,
    idle_tails: Vec<f64>,
    sizes: Vec<(Size, usize)>,
    notes: Vec<String>,
}

/// Events per second acknowledged as stored, and latency of a response.
///
/// # Errors
/// When a server or program is missing, or an event is refused.
pub async fn run(kind: Kind, options: Options) -> Result<Vec<Measurement>> {
    let release = release::build(&release::shape_of(kind.agents))?;
    let mut samples = Samples::default();
    for round in 1..=options.rounds {
        let time = Duration::from_secs(options.seconds);
        let half = samples.rates.last().map(|rate| rate / 2.0);
        measure(kind, (&release, time), half, &mut samples).await?;
        let last = round - 1;
        progress!(
            "{} {round}/{}: {:.0} events/s, without a log {:.0}, bare publishes {:.0}; p50 {:.1} ms, \
             p99 {:.1} ms; {}",
            kind.stage,
            options.rounds,
            samples.rates[last],
            samples.http[last],
            samples.log[last],
            samples.halves[last],
            samples.tails[last],
            samples.notes[last],
        );
    }
    Ok(measurements(kind, samples))
}

fn measurements(kind: Kind, samples: Samples) -> Vec<Measurement> {
    let Kind { stage, events, .. } = kind;
    let name = if events == 1 {
        "single events".to_owned()
    } else {
        format!("arrays of {events} events")
    };
    let rates = samples.rates;
    let stored = Measurement::new(stage, name.clone(), "events/s", rates.clone())
        .against("the server answering 204 without a log", samples.http);
    let half = Measurement::new(stage, "p99 at half the rate", "ms", samples.idle_tails);
    let (stored, half) = if events == 1 {
        let stored = stored.target(Target::RatioAtLeast(TARGET));
        (stored, half.target(Target::AtMost(LATENCY_TARGET_MS)))
    } else {
        (stored, half)
    };
    vec![
        stored.noting(samples.notes),
        Measurement::new(stage, name, "events/s", rates)
            .against("bare publishes of the same frames", samples.log),
        Measurement::new(stage, "p50 at the full rate", "ms", samples.halves),
        Measurement::new(stage, "p99 at the full rate", "ms", samples.tails),
        half,
        size_measurement(stage, "input", &samples.sizes),
    ]
}

/// A round: the gateway at full rate and at half of it, the server without a log, the log without a
/// gateway.
async fn measure(
    kind: Kind,
    (release, time): (&Release, Duration),
    half: Option<f64>,
    samples: &mut Samples,
) -> Result<()> {
    let control_plane = ControlPlane::start(&[]).await?;
    control_plane.announce(release).await?;
    let fleet = &release.fleet;
    let bus = control_plane.testbed.bus().await?;
    let events = (0..kind.agents)
        .map(|number| AgentEvents::of(fleet, number))
        .collect();
    let mut agents = control_plane.agents(events).await?;
    let plan = LoadPlan {
        events: kind.events,
        time,
        rate: None,
    };
    let meter = control_plane.meter()?;
    let load_result = load_generator::run(&mut agents, kind.agents, plan).await?;
    samples.notes.push(meter.cores()?);
    let rate = load_result.rate() * kind.events as f64;
    samples.rates.push(rate);
    samples.halves.push(load_result.quantile(0.50));
    samples.tails.push(load_result.quantile(0.99));
    let (frames, size) = stored(&bus, load_result.requests * kind.events).await?;
    samples
        .sizes
        .push((size, load_result.requests * kind.events));
    let half = half.unwrap_or(rate / 2.0) / kind.events as f64;
    let plan = LoadPlan {
        rate: Some(half),
        ..plan
    };
    let load_result = load_generator::run(&mut agents, kind.agents, plan).await?;
    samples.idle_tails.push(load_result.quantile(0.99));
    drop(agents);
    control_plane.stop()?;
    samples
        .http
        .push(without_log(kind, &control_plane, (fleet, time)).await?);
    samples
        .log
        .push(without_gateway(&control_plane.testbed, &frames).await?);
    Ok(())
}

/// A frame of the input log.
struct Frame {
    /// Payload in the stored form.
    stored: Bytes,
    entries: usize,
}

/// Reads the frames of the input log and checks that every acknowledged event is in them.
async fn stored(bus: &Bus, answered: usize) -> Result<(Vec<Frame>, Size)> {
    let stream = bus.names().input_stream(Partition::new(0));
    let (mut frames, mut total) = (Vec::new(), Size::default());
    for message in messages_of(bus, &stream).await? {
        let (size, stored) = Size::of(&message);
        total = total + size;
        frames.push(Frame {
            entries: decode_input(&message)?.entries.len(),
            stored,
        });
    }
    let entries: usize = frames.iter().map(|frame| frame.entries).sum();
    ensure!(
        entries == answered,
        "{answered} events were acknowledged, the log contains {entries}"
    );
    Ok((frames, total))
}

/// Events per second of the server without a log.
async fn without_log(
    kind: Kind,
    control_plane: &ControlPlane,
    (fleet, time): (&SyntheticFleet, Duration),
) -> Result<f64> {
    let config = &control_plane.testbed.config;
    let (mut process, port) =
        gateway_baseline::start(&config.dir, &config.server, &config.authority).await?;
    let events = (0..kind.agents)
        .map(|number| AgentEvents::of(fleet, number))
        .collect();
    let mut agents = load_generator::connect(ports::local(port), &config.authority, events).await?;
    let plan = LoadPlan {
        events: kind.events,
        time,
        rate: None,
    };
    let load_result: LoadResult = load_generator::run(&mut agents, kind.agents, plan).await?;
    process.kill()?;
    Ok(load_result.rate() * kind.events as f64)
}

/// Events per second of publishes of the same frames, one in flight, as the gateway does.
async fn without_gateway(testbed: &Testbed, frames: &[Frame]) -> Result<f64> {
    let other = testbed.other_bus().await?;
    let stream = other.names().input_stream(Partition::new(0));
    let subject = other
        .names()
        .input_wildcard(Partition::new(0))
        .replace('>', "event.a.b");
    let context = jetstream::new(async_nats::connect(testbed.nats.url()).await?);
    let started = Instant::now();
    for (number, frame) in frames.iter().enumerate() {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", stream.as_str());
        headers.insert("Nats-Msg-Id", number.to_string());
        let payload = frame.stored.clone();
        let ack = context.publish_with_headers(subject.clone(), headers, payload);
        ack.await?.await.context("publishing a frame")?;
    }
    let seconds = started.elapsed().as_secs_f64();
    other.close().await;
    let entries: usize = frames.iter().map(|frame| frame.entries).sum();
    Ok(entries as f64 / seconds)
}
