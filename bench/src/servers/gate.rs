//! The gateway: events over mutual TLS, answered once they are in the log.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use nixfleet_bus::{Bus, decode_input};
use nixfleet_harness::{Database, Service, Stack, ports};
use nixfleet_proto::subject::Partition;
use nixfleet_store::{DatabaseConfig, Store};

use super::client::{self, Sender};
use super::events::Events;
use super::load::{self, Agent, Plan, Seen};
use super::log::{Size, messages_of, size_figure};
use super::nothing;
use super::usage::Meter;
use super::world::{self, World};
use super::{Options, say};
use crate::fleet::Fleet;
use crate::report::{Figure, Target};

/// Least part of what the server manages without a log.
const TARGET: f64 = 0.60;
/// Most milliseconds of all but one of a hundred answers at half the largest rate, one event per request.
const PATIENCE_MS: f64 = 25.0;
/// Limits of one host that a generator with few hosts would run into.
const RAISED: [(&str, &str); 3] = [
    ("limits.host_requests_per_second", "1000000"),
    ("limits.host_requests_burst", "1000000"),
    ("limits.requests_per_client", "1000"),
];

/// What is measured: single events, or arrays of them.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Name of the stage.
    pub stage: &'static str,
    /// Events of one request.
    pub events: usize,
    /// Agents, each with its certificate and its connection; all of them send at once.
    pub agents: usize,
}

/// One event per request.
pub const SINGLE: Kind = Kind {
    stage: "ingest-single",
    events: 1,
    agents: 1_000,
};
/// As many events as a request may have, and no more agents than the queue of a partition has room for.
pub const ARRAY: Kind = Kind {
    stage: "ingest-array",
    events: 100,
    agents: 128,
};

/// Samples of all rounds.
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

/// Events per second that are answered as stored, and how long an answer takes.
///
/// # Errors
/// When a server or program is missing, or an event is refused.
pub async fn run(kind: Kind, options: Options) -> Result<Vec<Figure>> {
    let fleet = Fleet::of(kind.agents);
    let mut samples = Samples::default();
    for round in 1..=options.rounds {
        let time = Duration::from_secs(options.seconds);
        let half = samples.rates.last().map(|rate| rate / 2.0);
        measure(kind, (&fleet, time), half, &mut samples).await?;
        let last = round - 1;
        say!(
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
    Ok(figures(kind, samples))
}

fn figures(kind: Kind, samples: Samples) -> Vec<Figure> {
    let Kind { stage, events, .. } = kind;
    let name = if events == 1 {
        "single events".to_owned()
    } else {
        format!("arrays of {events} events")
    };
    let rates = samples.rates;
    let stored = Figure::new(stage, name.clone(), "events/s", rates.clone())
        .against("the server answering 204 without a log", samples.http);
    let half = Figure::new(stage, "p99 at half the rate", "ms", samples.idle_tails);
    let (stored, half) = if events == 1 {
        let stored = stored.target(Target::RatioAtLeast(TARGET));
        (stored, half.target(Target::AtMost(PATIENCE_MS)))
    } else {
        (stored, half)
    };
    vec![
        stored.noting(samples.notes),
        Figure::new(stage, name, "events/s", rates)
            .against("bare publishes of the same frames", samples.log),
        Figure::new(stage, "p50 at the full rate", "ms", samples.halves),
        Figure::new(stage, "p99 at the full rate", "ms", samples.tails),
        half,
        size_figure(stage, "input", &samples.sizes),
    ]
}

/// One round: the gateway at full rate and at half of it, the server without a log, the log without a
/// gateway.
async fn measure(
    kind: Kind,
    (fleet, time): (&Fleet, Duration),
    half: Option<f64>,
    samples: &mut Samples,
) -> Result<()> {
    let gate = Gate::start(&[]).await?;
    let bus = gate.world.bus().await?;
    let events = (0..kind.agents)
        .map(|number| Events::of(fleet, number))
        .collect();
    let mut agents = gate.agents(events).await?;
    let plan = Plan {
        events: kind.events,
        time,
        rate: None,
    };
    let meter = gate.meter()?;
    let seen = load::run(&mut agents, kind.agents, plan).await?;
    samples.notes.push(meter.cores()?);
    let rate = seen.rate() * kind.events as f64;
    samples.rates.push(rate);
    samples.halves.push(seen.quantile(0.50));
    samples.tails.push(seen.quantile(0.99));
    let (frames, size) = stored(&bus, seen.requests * kind.events).await?;
    samples.sizes.push((size, seen.requests * kind.events));
    let half = half.unwrap_or(rate / 2.0) / kind.events as f64;
    let plan = Plan {
        rate: Some(half),
        ..plan
    };
    let seen = load::run(&mut agents, kind.agents, plan).await?;
    samples.idle_tails.push(seen.quantile(0.99));
    drop(agents);
    gate.stop()?;
    samples
        .http
        .push(without_log(kind, &gate, (fleet, time)).await?);
    samples
        .log
        .push(without_gateway(&gate.world, &frames).await?);
    Ok(())
}

/// A dotted key of a service and its value.
pub type Setting = (Service, &'static str, &'static str);

/// A running gateway with the servers behind it.
pub struct Gate {
    /// NATS.
    pub world: World,
    /// The database of the services.
    pub database: Database,
    stack: std::sync::Mutex<Stack>,
    pids: Vec<(&'static str, Option<u32>)>,
    port: u16,
}

impl Gate {
    /// Starts a gateway, and other services with it, and waits until all are ready.
    ///
    /// # Errors
    /// When a server or program is missing or does not get ready.
    pub async fn start(others: &[Service]) -> Result<Self> {
        Self::start_with(others, &[]).await
    }

    /// The same with further settings of single services.
    ///
    /// # Errors
    /// As [`Gate::start`].
    pub async fn start_with(others: &[Service], settings: &[Setting]) -> Result<Self> {
        let mut world = World::start()?;
        for (service, key, value) in settings {
            world.config.set(*service, key, *value);
        }
        for (key, value) in RAISED {
            world.config.set(Service::Ingest, key, value);
        }
        // The layout with room for a long log, before a service makes a small one.
        world.bus().await?.close().await;
        let (database, store) = world::database().await?;
        store.close();
        let mut services = others.to_vec();
        services.push(Service::Ingest);
        let mut stack = world.launch(&services, &database)?;
        stack.wait_ready().await?;
        let mut pids = vec![("generator", Some(std::process::id()))];
        for service in &services {
            pids.push((service.name(), stack.instance(*service, 0)?.pid()));
        }
        pids.push(("nats", world.nats.pid()));
        pids.push(("postgres", world::postgres()?.pid()));
        let url = stack.url(0)?;
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
        Ok(Self {
            port: port.context("the gateway has no port")?,
            stack: std::sync::Mutex::new(stack),
            pids,
            world,
            database,
        })
    }

    /// `https://…` of the gateway.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Connects agents.
    ///
    /// # Errors
    /// When the gateway refuses one.
    pub async fn agents(&self, events: Vec<Events>) -> Result<Vec<Agent>> {
        let address = ports::local(self.port);
        load::connect(address, &self.world.config.authority, events).await
    }

    /// An operator with a connection.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn operator(&self) -> Result<Sender> {
        let config = &self.world.config;
        client::open(ports::local(self.port), &config.authority, &config.operator).await
    }

    /// A connection to the tables, as their owner.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn store(&self) -> Result<Store> {
        let config = DatabaseConfig {
            url: self.database.url.clone(),
            pool_size: 2,
            ..DatabaseConfig::default()
        };
        Ok(Store::connect(&config)?)
    }

    /// Watches who is busy from now on.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn meter(&self) -> Result<Meter> {
        Meter::start(self.pids.iter().copied())
    }

    /// Stops the services.
    ///
    /// # Errors
    /// When one does not end by itself.
    pub fn stop(&self) -> Result<()> {
        let stack = self.stack.lock();
        stack
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .stop()
    }
}

/// A frame of the input log.
struct Frame {
    /// Its payload in the stored form.
    stored: Bytes,
    entries: usize,
}

/// What the gateway made of the events; every one that was answered is there.
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
        "{answered} events were answered as stored, the log has {entries}"
    );
    Ok((frames, total))
}

/// Events per second of the server that does nothing.
async fn without_log(kind: Kind, gate: &Gate, (fleet, time): (&Fleet, Duration)) -> Result<f64> {
    let config = &gate.world.config;
    let (mut process, port) =
        nothing::start(&config.dir, &config.server, &config.authority).await?;
    let events = (0..kind.agents)
        .map(|number| Events::of(fleet, number))
        .collect();
    let mut agents = load::connect(ports::local(port), &config.authority, events).await?;
    let plan = Plan {
        events: kind.events,
        time,
        rate: None,
    };
    let seen: Seen = load::run(&mut agents, kind.agents, plan).await?;
    process.kill()?;
    Ok(seen.rate() * kind.events as f64)
}

/// Events per second of publishes of the same frames, one in flight, as the gateway does.
async fn without_gateway(world: &World, frames: &[Frame]) -> Result<f64> {
    let other = world.other_bus().await?;
    let stream = other.names().input_stream(Partition::new(0));
    let subject = other
        .names()
        .input_wildcard(Partition::new(0))
        .replace('>', "event.a.b");
    let context = jetstream::new(async_nats::connect(world.nats.url()).await?);
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
