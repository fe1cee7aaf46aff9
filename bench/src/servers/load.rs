//! The load generator: agents with certificates of their own, each on one connection that it keeps,
//! one request of each at a time.
//!
//! What they send is made before; a request costs hyper, rustls and a clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use nixfleet_harness::pki::{Pair, Pki};
use nixfleet_proto::wire::{EventAnswer, PROTOCOL_HEADER, PROTOCOL_VERSION};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::events::Events;
use super::say;

/// Path of events.
pub const PATH: &str = "/v1/agent/events";

/// An agent with its connection.
pub struct Agent {
    sender: SendRequest<Full<Bytes>>,
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
        let tls = TlsConnector::from(Arc::new(tls(authority, &pair)?));
        let stream = TcpStream::connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = tls.connect(name, stream).await.context("shaking hands")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                say!("a connection broke: {error}");
            }
        });
        agents.push(Agent { sender, events });
    }
    Ok(agents)
}

fn tls(authority: &Pair, identity: &Pair) -> Result<rustls::ClientConfig> {
    nixfleet_harness::operator::install_tls();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.cert)?)?;
    let chain = vec![CertificateDer::from_pem_file(&identity.cert)?];
    let key = PrivateKeyDer::from_pem_file(&identity.key)?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    Ok(config.with_client_auth_cert(chain, key)?)
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
        tokio::time::sleep_until(due.into()).await;
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
        let request = Request::builder()
            .uri("/v1/agent/dispatch?wait=60")
            .header(header::HOST, "localhost")
            .header(PROTOCOL_HEADER, PROTOCOL_VERSION)
            .body(Full::default())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == StatusCode::OK,
            "the answer to a poll is {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
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
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(PROTOCOL_HEADER, PROTOCOL_VERSION)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        let body = response.into_body().collect().await?.to_bytes();
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
