//! Polling the source.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use nixfleet_bus::{ManifestStore, PublishError};
use nixfleet_trust::{
    AcceptedRelease, Release, ReleaseBundle, ReleaseContent, admit, verify_release,
};
use tokio::sync::watch;

use super::known::{Known, Superseded};
use super::refusals::Refusals;
use super::trust::{Trust, now};
use crate::config::SourceConfig;
use crate::measure;
use crate::source::{Source, SourceError};

/// What the task is made of.
pub struct Parts {
    pub store: ManifestStore,
    pub source: Source,
    pub trust: Trust,
    pub known: watch::Receiver<Known>,
    pub superseded: watch::Receiver<Superseded>,
    pub config: SourceConfig,
}

/// The task that polls.
pub struct Poll {
    parts: Parts,
    refusals: Refusals,
    failures: u32,
    /// The last release that needs nothing more.
    settled: Option<ReleaseBundle>,
}

/// What became of one poll.
#[derive(Debug, PartialEq, Eq)]
enum Polled {
    Unchanged,
    Announced,
    Refused,
    /// The announcements are not all read yet, or somebody announced at the same time.
    Later,
}

impl Poll {
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            refusals: Refusals::default(),
            failures: 0,
            settled: None,
        }
    }

    /// Polls until stopped.
    pub async fn run(mut self) {
        loop {
            let pause = self.poll_once().await;
            tokio::time::sleep(pause).await;
        }
    }

    async fn poll_once(&mut self) -> Duration {
        let limit = self.parts.config.timeout();
        let polled = match tokio::time::timeout(limit, self.parts.source.fetch()).await {
            Err(_) => Err(anyhow::anyhow!("no whole release within {limit:?}")),
            Ok(Err(SourceError::Nothing)) => {
                tracing::debug!("the source has no release yet");
                Ok(Polled::Unchanged)
            }
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(None)) => Ok(Polled::Unchanged),
            Ok(Ok(Some(bundle))) => self.consider(bundle).await,
        };
        let interval = self.parts.config.poll();
        match polled {
            Ok(polled) => {
                self.failures = 0;
                if !matches!(polled, Polled::Unchanged | Polled::Announced) {
                    self.parts.source.forget();
                }
                measure::polled(polled.name());
                interval
            }
            Err(error) => {
                self.parts.source.forget();
                self.failures = self.failures.saturating_add(1);
                let pause = backoff(interval, self.failures, &self.parts.config);
                tracing::warn!(
                    error = format!("{error:#}"),
                    pause_ms = pause.as_millis() as u64,
                    "manifest poll failed, the last good release stays"
                );
                measure::polled("failed");
                pause
            }
        }
    }

    async fn consider(&mut self, bundle: ReleaseBundle) -> anyhow::Result<Polled> {
        if self.settled.as_ref() == Some(&bundle) {
            return Ok(Polled::Unchanged);
        }
        let Some((release, bundle)) = self.verify(bundle).await? else {
            return Ok(Polled::Refused);
        };
        let Some((expected_seq, accepted)) = self.accepted().await? else {
            return Ok(Polled::Later);
        };
        if accepted.as_ref() == Some(&release.accepted()) {
            self.settled = Some(bundle);
            return Ok(Polled::Unchanged);
        }
        let superseded = self.parts.superseded.borrow().clone();
        let admitted = admit(&release, accepted.as_ref(), &|id| superseded.contains(id));
        match admitted {
            Err(error) => {
                let faults = error.faults.iter().map(|fault| fault.name().to_owned());
                let faults: Vec<_> = faults.collect();
                self.refusals
                    .say("the polled release", &faults, error.to_string());
                return Ok(Polled::Refused);
            }
            Ok(admission) => {
                let (notices, renewed) = (admission.notices.len(), admission.renewed);
                tracing::info!(signed_at = %release.signed_at(), notices, renewed, "admitted");
            }
        }
        self.announce(&release, bundle, expected_seq).await
    }

    async fn verify(
        &mut self,
        bundle: ReleaseBundle,
    ) -> anyhow::Result<Option<(Release, ReleaseBundle)>> {
        let trust = self.parts.trust.read().await?;
        let window = self.parts.trust.window;
        // Canonicalising a large fleet takes long enough to make other tasks wait.
        let verified = tokio::task::spawn_blocking(move || {
            verify_release(&bundle, &trust, now(), window).map(|release| (release, bundle))
        });
        match verified.await? {
            Ok(verified) => Ok(Some(verified)),
            Err(error) => {
                let fault = error.name().to_owned();
                let text = format!("{:#}", anyhow::Error::from(error));
                self.refusals.say("the polled release", &[fault], text);
                Ok(None)
            }
        }
    }

    /// The announcement to go on from: its sequence and what it accepted. `None` while the last one
    /// has not been verified here. One that was refused still counts by its time of signing.
    async fn accepted(&self) -> anyhow::Result<Option<(u64, Option<AcceptedRelease>)>> {
        let announced = self.parts.store.current().await?;
        let Some((seq, announcement)) = announced else {
            return Ok(Some((0, None)));
        };
        let known = self.parts.known.borrow().clone();
        if let Some(current) = known.current.filter(|current| current.seq == seq) {
            return Ok(Some((seq, Some(current.accepted.clone()))));
        }
        if known.refused_seq != Some(seq) {
            return Ok(None);
        }
        let accepted = AcceptedRelease {
            signed_at: announcement.fleet.signed_at,
            commit: None,
            content: ReleaseContent {
                fleet: announcement.fleet.hash,
                rollouts: BTreeMap::new(),
            },
        };
        Ok(Some((seq, Some(accepted))))
    }

    /// Bytes first: an announcement must never name what is not there.
    async fn announce(
        &mut self,
        release: &Release,
        bundle: ReleaseBundle,
        expected_seq: u64,
    ) -> anyhow::Result<Polled> {
        for (hash, bytes) in release.objects(&bundle) {
            let bytes = Bytes::copy_from_slice(bytes);
            self.parts.store.put(hash, bytes).await?;
        }
        let announcement = release.announcement();
        match self.parts.store.announce(&announcement, expected_seq).await {
            Ok(seq) => {
                tracing::info!(seq, signed_at = %release.signed_at(), "release announced");
                self.refusals.forget();
                self.settled = Some(bundle);
                Ok(Polled::Announced)
            }
            Err(PublishError::Fenced { .. }) => Ok(Polled::Later),
            Err(error) => Err(error).context("announcing the release"),
        }
    }
}

impl Polled {
    fn name(&self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Announced => "announced",
            Self::Refused => "refused",
            Self::Later => "later",
        }
    }
}

/// Doubles with every failure in a row, up to the configured pause.
fn backoff(interval: Duration, failures: u32, config: &SourceConfig) -> Duration {
    let most = Duration::from_secs(config.backoff_max_seconds).max(interval);
    interval.saturating_mul(1 << failures.min(16)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_polls_pause_longer_up_to_the_limit() {
        let config = SourceConfig::default();
        let pause = |failures| backoff(Duration::from_secs(30), failures, &config).as_secs();
        assert_eq!(
            [1, 2, 3, 4, 40].map(pause),
            [60, 120, 240, 300, 300],
            "seconds"
        );
    }
}
