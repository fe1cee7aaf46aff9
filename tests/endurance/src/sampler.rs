//! Samples sizes, lags and readiness once a second.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nixfleet_audit::database;
use nixfleet_harness::progress_printer::Printer;
use nixfleet_harness::{Service, monitoring, scratch};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::number_format::{format_bytes, format_count};
use crate::output_follower::SharedCounts;
use crate::progress_tracker::Progress;

/// Sampling interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// Samples from one line of progress to the next.
const PROGRESS_EVERY: usize = 5;
/// Buckets of objects are streams with this prefix.
const OBJECTS: &str = "OBJ_";

/// A sample.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Seconds since the start of the run.
    pub seconds: f64,
    /// Bytes of the channel's input log.
    pub input_bytes: u64,
    /// Bytes of the channel's output log.
    pub output_bytes: u64,
    /// Bytes of all objects.
    pub object_bytes: u64,
    /// Bytes on disk of the bus's store directory.
    pub disk_bytes: u64,
    /// Bytes of the database; `None` while it is unreachable.
    pub database_bytes: Option<u64>,
    /// Agents' events that were accepted.
    pub accepted: u64,
    /// Agents' events with an outcome that are not in the tables.
    pub applier_lag: u64,
    /// Agents' events with an outcome that are not in the archive.
    pub archive_lag: u64,
    /// Releases that were published.
    pub releases: u32,
    /// Number of ready services.
    pub ready: usize,
}

/// Samples and readiness faults of a run.
#[derive(Debug, Default, Clone)]
pub struct Samples {
    /// In the order of time.
    pub samples: Vec<Sample>,
    /// Distinct readiness faults of services after their first readiness.
    pub not_ready: BTreeSet<String>,
    /// Unready services are no fault at present.
    pub allows_unready: bool,
}

/// Sources of the samples.
#[derive(Clone)]
pub struct Targets {
    /// Start of the run.
    pub start: Instant,
    /// Health ports of the services by name.
    pub services: Vec<(String, u16)>,
    /// Port of nats-server's monitor.
    pub nats_port: u16,
    /// Store directory of nats-server.
    pub store_dir: PathBuf,
    /// The database.
    pub database_url: String,
    /// Logs of the channel: input, output.
    pub logs: [String; 2],
    /// Counts of outcomes in the output log.
    pub counts: SharedCounts,
    /// Progress of tables and archive.
    pub progress: Arc<Progress>,
    /// Number of the last release.
    pub releases: Arc<AtomicU32>,
    /// Output of progress lines.
    pub printer: Printer,
}

/// A running sampler.
pub struct Sampler {
    samples: Arc<Mutex<Samples>>,
    task: JoinHandle<()>,
}

impl Sampler {
    /// Starts looking.
    pub fn start(targets: Targets) -> Self {
        let samples = Arc::new(Mutex::new(Samples::default()));
        let task = tokio::spawn(poll(targets, Arc::clone(&samples)));
        Self { samples, task }
    }

    /// Tolerates unready services until all of them are ready again.
    pub fn allow_unready(&self) {
        lock(&self.samples).allows_unready = true;
    }

    /// True when all services are ready; ends the tolerance of unready services.
    pub fn is_ready_again(&self) -> bool {
        let mut samples = lock(&self.samples);
        let last = samples.samples.last();
        let is_ready = last.is_some_and(|sample| sample.ready == Service::ALL.len());
        samples.allows_unready &= !is_ready;
        is_ready
    }

    /// Stops the sampler and returns all samples.
    pub fn finish(self) -> Samples {
        self.task.abort();
        std::mem::take(&mut *lock(&self.samples))
    }
}

fn lock(samples: &Mutex<Samples>) -> MutexGuard<'_, Samples> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn poll(targets: Targets, samples: Arc<Mutex<Samples>>) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = BTreeSet::new();
    loop {
        tick.tick().await;
        let (looked, database_bytes) = tokio::join!(
            // Monitors and directories are read with blocking calls.
            tokio::task::spawn_blocking({
                let targets = targets.clone();
                move || targets.poll()
            }),
            database_bytes(&targets.database_url),
        );
        let looked = looked
            .context("the sampling task panicked")
            .and_then(|looked| looked);
        let mut samples = lock(&samples);
        match looked {
            Ok((mut sample, states)) => {
                sample.database_bytes = database_bytes.ok();
                samples.record_readiness(states, &mut known);
                if samples.samples.len().is_multiple_of(PROGRESS_EVERY) {
                    targets.printer.timed_line(&sample.line());
                }
                samples.samples.push(sample);
            }
            Err(error) => {
                samples.not_ready.insert(format!("the bus: {error:#}"));
            }
        }
    }
}

async fn database_bytes(url: &str) -> Result<u64> {
    let sql = "SELECT pg_database_size(current_database())";
    let rows = database::query(url, sql, &[]).await?;
    let row = rows.first().context("no row")?;
    Ok(u64::try_from(row.get::<_, i64>(0))?)
}

/// A service and the body of its `/readyz` while it is not ready.
type State = (String, Option<String>);

impl Samples {
    /// Records services that became unready; a service that has never been ready is starting.
    fn record_readiness(&mut self, states: Vec<State>, known: &mut BTreeSet<String>) {
        for (name, fault) in states {
            match fault {
                None => {
                    known.insert(name);
                }
                Some(fault) if known.contains(&name) && !self.allows_unready => {
                    self.not_ready.insert(format!("{name}: {fault}"));
                }
                Some(_) => {}
            }
        }
    }
}

impl Targets {
    fn poll(&self) -> Result<(Sample, Vec<State>)> {
        let streams = monitoring::nats_streams(self.nats_port)?;
        let bytes = |name: &String| streams.get(name).map_or(0, |stream| stream.bytes);
        let objects = streams.iter().filter(|(name, _)| name.starts_with(OBJECTS));
        let services = self.services.iter();
        let states: Vec<State> = services
            .map(|(name, port)| (name.clone(), fault_of(*port)))
            .collect();
        let outcome_counts = self.counts.outcome_counts();
        let lag =
            |progress: &AtomicU64| outcome_counts.events.saturating_sub(progress.load(Relaxed));
        let sample = Sample {
            seconds: self.start.elapsed().as_secs_f64(),
            input_bytes: bytes(&self.logs[0]),
            output_bytes: bytes(&self.logs[1]),
            object_bytes: objects.map(|(_, stream)| stream.bytes).sum(),
            disk_bytes: scratch::bytes_on_disk(&self.store_dir)?,
            database_bytes: None,
            accepted: outcome_counts.accepted,
            applier_lag: lag(&self.progress.applied_events),
            archive_lag: lag(&self.progress.archived_events),
            releases: self.releases.load(Relaxed),
            ready: states.iter().filter(|(_, fault)| fault.is_none()).count(),
        };
        Ok((sample, states))
    }
}

fn fault_of(port: u16) -> Option<String> {
    match monitoring::get(port, "/readyz") {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(answer.body),
        Err(error) => Some(format!("{error:#}")),
    }
}

impl Sample {
    /// A line of progress.
    fn line(&self) -> String {
        let database = self.database_bytes.map_or("away".to_owned(), format_bytes);
        format!(
            "release {}, {} events; logs {} in, {} out, objects {}, disk of the bus {}, database \
             {database}; lag {} applied, {} archived; {} ready",
            self.releases,
            format_count(self.accepted),
            format_bytes(self.input_bytes),
            format_bytes(self.output_bytes),
            format_bytes(self.object_bytes),
            format_bytes(self.disk_bytes),
            format_count(self.applier_lag),
            format_count(self.archive_lag),
            self.ready
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_checked_after_the_first_readiness() {
        let mut samples = Samples::default();
        let mut known = BTreeSet::new();
        let state = |fault: Option<&str>| vec![("a".to_owned(), fault.map(str::to_owned))];
        samples.record_readiness(state(Some("starts")), &mut known);
        assert!(samples.not_ready.is_empty());
        samples.record_readiness(state(None), &mut known);
        samples.record_readiness(state(Some("full")), &mut known);
        assert_eq!(samples.not_ready, ["a: full".to_owned()].into());
    }
}
