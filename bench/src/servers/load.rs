//! The load generator: agents with certificates of their own, each on one connection that it keeps,
//! one request of each at a time.
//!
//! What they send is made before; a request costs hyper, rustls and a clock.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Method, StatusCode};
use nixfleet_harness::pki::{Pair, Pki};
use nixfleet_proto::wire::EventAnswer;

use super::client::{Sender, exchange, json, open};
use super::events::Events;

/// Path of events.
pub const PATH: &str = "/v1/agent/events";

/// An agent with its connection.
pub struct Agent {
    sender: Sender,
    events: Events,
}

/// What a run of the generator saw.
#[derive(Default)]
pub struct Seen {
    /// Seconds it took.
    pub seconds: f64,
    /// Requests answered as they should be.
    pub requests: usize,
    /// Milliseconds from when a request was due to its answer, sorted.
    latencies: Vec<f64>,
}

impl Seen {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// A quantile of the latencies in milliseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        let place = (self.latencies.len() as f64 * part) as usize;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(place.min(last)).copied().unwrap_or(0.0)
    }
}

/// How agents send.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Events of one request; one alone is sent as an object, more as an array.
    pub events: usize,
    /// How long.
    pub time: Duration,
    /// Requests per second of all together, sent when they are due whatever the answers take; `None`
    /// sends the next when the last is answered.
    pub rate: Option<f64>,
}

/// Connects one agent per set of events.
///
/// # Errors
/// When the server refuses a connection.
pub async fn connect(
    address: SocketAddr,
    authority: &Pair,
    events: Vec<Events>,
) -> Result<Vec<Agent>> {
    let pki = Pki::open(authority)?;
    let mut agents = Vec::with_capacity(events.len());
    for events in events {
        let pair = pki.agent(events.hostname())?;
        let sender = open(address, authority, &pair).await?;
        agents.push(Agent { sender, events });
    }
    Ok(agents)
}

/// Lets the agents send, at most `at_once` requests at a time: as many tasks share the agents, and go
/// from one to the next.
///
/// # Errors
/// When an answer is another one than it should be.
pub async fn run(agents: &mut Vec<Agent>, at_once: usize, plan: Plan) -> Result<Seen> {
    let tasks = at_once.min(agents.len());
    let mut shares: Vec<Vec<Agent>> = (0..tasks).map(|_| Vec::new()).collect();
    for (number, agent) in agents.drain(..).enumerate() {
        shares[number % tasks].push(agent);
    }
    let started = Instant::now();
    let running = shares.into_iter().enumerate().map(|(number, share)| {
        let pace = plan.rate.map(|rate| {
            let between = Duration::from_secs_f64(tasks as f64 / rate);
            let first = started + between.mul_f64(number as f64 / tasks as f64);
            (first, between)
        });
        tokio::spawn(send(share, plan, (started + plan.time, pace)))
    });
    let mut seen = Seen::default();
    for done in try_join_all(running).await? {
        let (share, latencies) = done?;
        agents.extend(share);
        seen.latencies.extend(latencies);
    }
    seen.seconds = started.elapsed().as_secs_f64();
    seen.requests = seen.latencies.len();
    seen.latencies.sort_by(f64::total_cmp);
    ensure!(seen.requests > 0, "nothing was answered");
    Ok(seen)
}

/// When a task stops; when it sends its first request and how long it waits between two.
type Times = (Instant, Option<(Instant, Duration)>);

async fn send(
    mut share: Vec<Agent>,
    plan: Plan,
    (end, pace): Times,
) -> Result<(Vec<Agent>, Vec<f64>)> {
    let mut latencies = Vec::new();
    for turn in 0.. {
        let due = match pace {
            Some((first, between)) => first + between * turn,
            None => Instant::now(),
        };
        if due >= end {
            break;
        }
        if pace.is_some() {
            // A timer has whole milliseconds: who sends at once must not ask it.
            tokio::time::sleep_until(due.into()).await;
        }
        let place = turn as usize % share.len();
        share[place].request(plan.events).await?;
        latencies.push(due.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok((share, latencies))
}

impl Agent {
    /// What it has to say.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Holds a request open until there is a dispatch.
    ///
    /// # Errors
    /// When none comes within a minute, or the gateway answers otherwise.
    pub async fn dispatch(&mut self) -> Result<()> {
        ensure!(self.poll().await?, "no dispatch came within a minute");
        Ok(())
    }

    /// Holds requests open, one after the other, until there is a dispatch.
    ///
    /// # Errors
    /// When the gateway answers otherwise, or none comes in that time.
    pub async fn dispatch_within(&mut self, patience: Duration) -> Result<()> {
        let started = Instant::now();
        while !self.poll().await? {
            ensure!(started.elapsed() < patience, "no dispatch came");
        }
        Ok(())
    }

    /// Whether there was a dispatch within a minute.
    async fn poll(&mut self) -> Result<bool> {
        let path = "/v1/agent/dispatch?wait=60";
        let request = json(Method::GET, path, Bytes::new())?;
        let (status, body) = exchange(&mut self.sender, request).await?;
        let answered = status == StatusCode::OK || status == StatusCode::NO_CONTENT;
        ensure!(
            answered,
            "the answer to a poll is {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(status == StatusCode::OK)
    }

    /// Claims convergence.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn claim(&mut self) -> Result<()> {
        let body = self.events.claim();
        self.post(body, 1).await
    }

    /// Sends the next events and waits for the answer.
    ///
    /// # Errors
    /// When the gateway refuses one of them.
    pub async fn request(&mut self, events: usize) -> Result<()> {
        let body = self.events.next(events);
        self.post(body, events).await
    }

    async fn post(&mut self, body: Bytes, events: usize) -> Result<()> {
        let request = json(Method::POST, PATH, body)?;
        let (status, body) = exchange(&mut self.sender, request).await?;
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        if status == StatusCode::OK {
            let answers: Vec<EventAnswer> = serde_json::from_slice(&body)?;
            ensure!(answers.len() == events, "an event has no answer");
            if answers.iter().all(|answer| answer.status == 204) {
                return Ok(());
            }
        }
        bail!(
            "the server answered {status}: {}",
            String::from_utf8_lossy(&body)
        )
    }
}
