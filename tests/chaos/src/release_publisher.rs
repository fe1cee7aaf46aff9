//! Publishes releases during the run, so that there is always a rollout.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::Utc;
use nixfleet_harness::Operator;
use nixfleet_harness::release::Signer;
use nixfleet_trust::BuiltRelease;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fleet::{Hosts, Release};

/// Shortest and longest time between two releases, in seconds: some rollouts are superseded, some complete.
const INTERVAL_SECONDS: (f64, f64) = (5.0, 12.0);
/// Pause after a failed publication.
const RETRY: Duration = Duration::from_millis(500);
/// Longest time for the last release to be accepted after the last repair.
const LAST_RELEASE_TIMEOUT: Duration = Duration::from_secs(60);

/// Counts of published releases.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Releases that work everywhere.
    pub good: u32,
    /// Releases with a faulty closure.
    pub faulty: u32,
    /// Failed attempts, which were repeated.
    pub retries: u32,
    /// The last failure.
    pub last_failure: Option<String>,
}

/// The publishing task.
pub struct Publisher {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
    published: Arc<Mutex<Published>>,
}

impl Publisher {
    /// Publishes releases until it is stopped.
    ///
    /// # Errors
    /// When the release key cannot be used.
    pub fn start(hosts: Hosts, operators: Vec<Operator>, seed: u64) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let published = Arc::new(Mutex::new(Published::default()));
        let work = Work {
            hosts,
            operators,
            signer: Signer::development()?,
            rng: StdRng::seed_from_u64(seed ^ 0x7265_6c65_6173_6573),
            published: Arc::clone(&published),
        };
        Ok(Self {
            stop,
            task: tokio::spawn(work.run(stopped)),
            published,
        })
    }

    /// Publishes a last release that works everywhere, and stops.
    ///
    /// # Errors
    /// When it is not accepted in time.
    pub async fn finish(self) -> Result<Published> {
        self.stop.send_replace(true);
        self.task.await.context("the publisher panicked")??;
        let published = self.published.lock();
        Ok(published.unwrap_or_else(PoisonError::into_inner).clone())
    }
}

struct Work {
    hosts: Hosts,
    operators: Vec<Operator>,
    signer: Signer,
    rng: StdRng,
    published: Arc<Mutex<Published>>,
}

impl Work {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        for number in 1.. {
            let release = match number {
                1 => self.hosts.good(number),
                _ => self.hosts.draw(number, &mut self.rng),
            };
            let built = self.build(&release)?;
            tokio::select! {
                () = self.publish(&built) => self.count(&release),
                () = is_stopped(&mut stopped) => return self.last(number + 1).await,
            }
            let (least, most) = INTERVAL_SECONDS;
            let pause = Duration::from_secs_f64(self.rng.random_range(least..most));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = is_stopped(&mut stopped) => return self.last(number + 1).await,
            }
        }
        Ok(())
    }

    async fn last(&mut self, number: u32) -> Result<()> {
        let start = Instant::now();
        let release = self.hosts.good(number);
        let built = self.build(&release)?;
        tokio::time::timeout(LAST_RELEASE_TIMEOUT, self.publish(&built))
            .await
            .with_context(|| {
                let failure = self.seen().last_failure.clone().unwrap_or_default();
                let waited = start.elapsed().as_secs();
                format!("the last release was not accepted within {waited} s: {failure}")
            })?;
        self.count(&release);
        Ok(())
    }

    fn build(&self, release: &Release) -> Result<BuiltRelease> {
        let source = self.hosts.source(release)?;
        self.signer.release(&source, &release.commit(), Utc::now())
    }

    /// Publishes to the gateways in turn until one accepts; publishing a release twice changes nothing.
    async fn publish(&self, built: &BuiltRelease) {
        for operator in self.operators.iter().cycle() {
            let Err(error) = operator.publish(built).await else {
                return;
            };
            {
                let mut published = self.seen();
                published.retries += 1;
                published.last_failure = Some(format!("{error:#}"));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn count(&self, release: &Release) {
        let mut published = self.seen();
        if release.is_good() {
            published.good += 1;
        } else {
            published.faulty += 1;
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn is_stopped(stopped: &mut watch::Receiver<bool>) {
    // The sender lives as long as the publisher; without one there is no stop request.
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}
