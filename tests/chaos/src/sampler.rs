//! Samples hosts, logs and tables several times a second, during faults too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use nixfleet_audit::database::SCHEMA;
use nixfleet_harness::monitoring::{self, StreamState};
use nixfleet_proto::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// Interval between two samples.
const INTERVAL: Duration = Duration::from_millis(250);
/// Timeout after which the database counts as unavailable.
const DATABASE_TIMEOUT: Duration = Duration::from_millis(500);

/// A sample; a source that did not answer in time is absent.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Time of the sample.
    pub at: Timestamp,
    /// Acknowledged events, and pending ones.
    pub events: Option<(u64, u64)>,
    /// State of each stream.
    pub streams: Option<BTreeMap<String, StreamState>>,
    /// Cursors in the database.
    pub cursors: Option<Cursors>,
}

/// Cursors of the tables and the archive.
#[derive(Debug, Clone, Default)]
pub struct Cursors {
    /// Last applied output sequence by partition.
    pub applied: BTreeMap<u16, u64>,
    /// Last archived sequence by stream.
    pub archived: BTreeMap<String, u64>,
}

/// Sources of the samples.
#[derive(Debug, Clone)]
pub struct SampleTargets {
    /// Port of the swarm's admin listener.
    pub swarm_port: u16,
    /// Monitoring port of nats-server.
    pub nats_port: u16,
    /// URL of the database, without a proxy.
    pub database_url: String,
}

/// The sampling task.
pub struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Starts sampling.
    pub fn start(targets: SampleTargets) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(sample_periodically(targets, Arc::clone(&samples), stopped));
        Self {
            samples,
            stop,
            task,
        }
    }

    /// The newest sample.
    pub fn last(&self) -> Option<Sample> {
        lock(&self.samples).last().cloned()
    }

    /// Stops the sampler and returns all samples.
    ///
    /// # Errors
    /// When the task panicked.
    pub async fn finish(self) -> Result<Vec<Sample>> {
        self.stop.send_replace(true);
        self.task.await.context("the sampler panicked")?;
        let samples = std::mem::take(&mut *lock(&self.samples));
        Ok(samples)
    }
}

fn lock(samples: &Mutex<Vec<Sample>>) -> MutexGuard<'_, Vec<Sample>> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn sample_periodically(
    targets: SampleTargets,
    samples: Arc<Mutex<Vec<Sample>>>,
    stopped: watch::Receiver<bool>,
) {
    let mut database = Database {
        url: targets.database_url.clone(),
        client: None,
    };
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        tick.tick().await;
        let (swarm, nats) = (targets.swarm_port, targets.nats_port);
        // The monitors are read with blocking calls.
        let (events, streams, cursors) = tokio::join!(
            tokio::task::spawn_blocking(move || events(swarm)),
            tokio::task::spawn_blocking(move || streams(nats)),
            database.cursors(),
        );
        let sample = Sample {
            at: Utc::now(),
            events: events.ok().and_then(Result::ok),
            streams: streams.ok().and_then(Result::ok),
            cursors,
        };
        lock(&samples).push(sample);
    }
}

fn events(port: u16) -> Result<(u64, u64)> {
    let summary: Value = serde_json::from_str(&monitoring::get(port, "/summary")?.body)?;
    let count = |key: &str| {
        summary["totals"][key]
            .as_u64()
            .with_context(|| format!("the summary of the swarm has no {key}"))
    };
    Ok((count("acceptedEvents")?, count("pendingEvents")?))
}

fn streams(port: u16) -> Result<BTreeMap<String, StreamState>> {
    let streams = monitoring::nats_streams(port)?;
    anyhow::ensure!(!streams.is_empty(), "nats-server lists no streams");
    Ok(streams)
}

/// A connection that is replaced after an error.
struct Database {
    url: String,
    client: Option<Client>,
}

impl Database {
    async fn cursors(&mut self) -> Option<Cursors> {
        let asked = tokio::time::timeout(DATABASE_TIMEOUT, self.ask()).await;
        let cursors = asked.ok().and_then(Result::ok);
        if cursors.is_none() {
            self.client = None;
        }
        cursors
    }

    async fn ask(&mut self) -> Result<Cursors> {
        if self.client.is_none() {
            let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
            // The task ends when the client is dropped or the server closes the connection.
            tokio::spawn(async move { drop(connection.await) });
            self.client = Some(client);
        }
        let client = self.client.as_ref().context("just connected")?;
        let applied = format!("SELECT partition, out_seq FROM {SCHEMA}.partition_cursors");
        let archived = format!("SELECT stream, sequence FROM {SCHEMA}.archive_cursors");
        let mut cursors = Cursors::default();
        for row in client.query(&applied, &[]).await? {
            let (partition, seq): (i32, i64) = (row.get(0), row.get(1));
            cursors
                .applied
                .insert(u16::try_from(partition)?, u64::try_from(seq)?);
        }
        for row in client.query(&archived, &[]).await? {
            let (stream, seq): (String, i64) = (row.get(0), row.get(1));
            cursors.archived.insert(stream, u64::try_from(seq)?);
        }
        Ok(cursors)
    }
}
