//! Load generator: agents with their own certificates, each with one persistent connection and one request
//! at a time.
//!
//! Requests are encoded in advance; sending one costs hyper, rustls and a clock.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Method, StatusCode};
use nixfleet_harness::pki::{Pair, Pki};
use nixfleet_proto::wire::EventAnswer;

use super::agent_events::AgentEvents;
use super::https_client::{Sender, exchange, json, open};

/// Path of events.
pub const PATH: &str = "/v1/agent/events";

/// An agent with its connection.
pub struct Agent {
    sender: Sender,
    events: AgentEvents,
}

#[derive(Default)]
pub struct LoadResult {
    /// Duration in seconds.
    pub seconds: f64,
    /// Requests with the expected response.
    pub requests: usize,
    /// Milliseconds from the due time of a request to its response, sorted.
    latencies: Vec<f64>,
}

impl LoadResult {
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// A quantile of the latencies in milliseconds.
    pub fn quantile(&self, part: f64) -> f64 {
        let index = (self.latencies.len() as f64 * part) as usize;
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(index.min(last)).copied().unwrap_or(0.0)
    }
}

/// Shape of a load.
#[derive(Debug, Clone, Copy)]
pub struct LoadPlan {
    /// Events per request; a single one is sent as an object, several as an array.
    pub events: usize,
    pub time: Duration,
    /// Requests per second of all agents, sent when due regardless of pending responses; `None` sends each
    /// request after the response to the previous one.
    pub rate: Option<f64>,
}

/// Connects one agent per set of events.
pub async fn connect(
    address: SocketAddr,
    authority: &Pair,
    events: Vec<AgentEvents>,
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

/// Sends the requests of a load, at most `at_once` at a time: that many tasks share the agents and visit
/// them in turn.
///
/// # Errors
/// When a response is not the expected one.
pub async fn run(agents: &mut Vec<Agent>, at_once: usize, plan: LoadPlan) -> Result<LoadResult> {
    let tasks = at_once.min(agents.len());
    let mut groups: Vec<Vec<Agent>> = (0..tasks).map(|_| Vec::new()).collect();
    for (number, agent) in agents.drain(..).enumerate() {
        groups[number % tasks].push(agent);
    }
    let started = Instant::now();
    let running = groups.into_iter().enumerate().map(|(number, group)| {
        let interval = plan.rate.map(|rate| {
            let between = Duration::from_secs_f64(tasks as f64 / rate);
            let first = started + between.mul_f64(number as f64 / tasks as f64);
            Interval { first, between }
        });
        let end = started + plan.time;
        tokio::spawn(send(group, plan, Pacing { end, interval }))
    });
    let mut load_result = LoadResult::default();
    for done in try_join_all(running).await? {
        let (group, latencies) = done?;
        agents.extend(group);
        load_result.latencies.extend(latencies);
    }
    load_result.seconds = started.elapsed().as_secs_f64();
    load_result.requests = load_result.latencies.len();
    load_result.latencies.sort_by(f64::total_cmp);
    ensure!(load_result.requests > 0, "no request succeeded");
    Ok(load_result)
}

/// Times at which a task sends its requests.
#[derive(Clone, Copy)]
struct Pacing {
    end: Instant,
    /// `None` when each request follows the response to the previous one.
    interval: Option<Interval>,
}

/// Times at which requests are due.
#[derive(Clone, Copy)]
struct Interval {
    first: Instant,
    between: Duration,
}

async fn send(
    mut group: Vec<Agent>,
    plan: LoadPlan,
    pacing: Pacing,
) -> Result<(Vec<Agent>, Vec<f64>)> {
    let mut latencies = Vec::new();
    for turn in 0.. {
        let due = match pacing.interval {
            Some(Interval { first, between }) => first + between * turn,
            None => Instant::now(),
        };
        if due >= pacing.end {
            break;
        }
        if pacing.interval.is_some() {
            // Timers have a resolution of milliseconds; requests without an interval must not wait for one.
            tokio::time::sleep_until(due.into()).await;
        }
        let index = turn as usize % group.len();
        group[index].request(plan.events).await?;
        latencies.push(due.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok((group, latencies))
}

impl Agent {
    pub fn events(&self) -> &AgentEvents {
        &self.events
    }

    /// Polls for a minute until there is a dispatch.
    pub async fn dispatch(&mut self) -> Result<()> {
        ensure!(self.poll().await?, "no dispatch within a minute");
        Ok(())
    }

    /// Polls repeatedly until there is a dispatch.
    pub async fn dispatch_within(&mut self, timeout: Duration) -> Result<()> {
        let started = Instant::now();
        while !self.poll().await? {
            ensure!(
                started.elapsed() < timeout,
                "no dispatch within the timeout"
            );
        }
        Ok(())
    }

    /// Polls for a minute; true when there was a dispatch.
    async fn poll(&mut self) -> Result<bool> {
        let path = "/v1/agent/dispatch?wait=60";
        let request = json(Method::GET, path, Bytes::new())?;
        let (status, body) = exchange(&mut self.sender, request).await?;
        let answered = status == StatusCode::OK || status == StatusCode::NO_CONTENT;
        ensure!(
            answered,
            "a poll got {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(status == StatusCode::OK)
    }

    pub async fn claim(&mut self) -> Result<()> {
        let body = self.events.claim();
        self.post(body, 1).await
    }

    /// Sends the next events and waits for the response.
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
            ensure!(answers.len() == events, "an event has no result");
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
