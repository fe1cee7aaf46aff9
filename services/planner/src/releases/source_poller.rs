//! Polls the source of releases.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use nixfleet_bus::{ManifestStore, PublishError};
use nixfleet_trust::{
    AcceptedRelease, Release, ReleaseBundle, ReleaseFloor, admit, verify_release,
};
use tokio::sync::watch;

use super::latest_release::{ReleaseState, SupersededRollouts};
use super::refusal_log::RefusalLog;
use super::trust_settings::{TrustSettings, now};
use crate::config::SourceConfig;
use crate::releases::source::{Source, SourceError};
use crate::telemetry;

/// Clients and settings of a poller.
pub struct PollerParts {
    pub store: ManifestStore,
    pub source: Source,
    pub trust: TrustSettings,
    pub state: watch::Receiver<ReleaseState>,
    pub superseded: watch::Receiver<SupersededRollouts>,
    /// What this process accepted.
    pub floor: Arc<Mutex<ReleaseFloor>>,
    pub config: SourceConfig,
}

pub struct SourcePoller {
    parts: PollerParts,
    refusals: RefusalLog,
    failures: u32,
    /// The last release that is announced already.
    up_to_date: Option<ReleaseBundle>,
}

#[derive(Debug, PartialEq, Eq)]
enum Polled {
    Unchanged,
    Announced,
    Refused,
    /// Some announcements are not read yet, or another one was made at the same time.
    Retry,
}

/// What the polled release is compared with.
struct ComparisonBase {
    /// The sequence of the last announcement, which the next one has to name.
    expected_seq: u64,
    /// Whether the accepted release is announced; the stream may have lost it.
    is_current: bool,
    accepted: Option<AcceptedRelease>,
}

impl SourcePoller {
    pub fn new(parts: PollerParts) -> Self {
        Self {
            parts,
            refusals: RefusalLog::default(),
            failures: 0,
            up_to_date: None,
        }
    }

    pub async fn run(mut self) {
        loop {
            let pause = self.poll_once().await;
            tokio::time::sleep(pause).await;
        }
    }

    async fn poll_once(&mut self) -> Duration {
        let limit = self.parts.config.timeout();
        let polled = match tokio::time::timeout(limit, self.parts.source.fetch()).await {
            Err(_) => Err(anyhow::anyhow!("no complete release within {limit:?}")),
            Ok(Err(SourceError::Nothing)) => {
                tracing::debug!("the source has no release yet");
                Ok(Polled::Unchanged)
            }
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(None)) => Ok(Polled::Unchanged),
            Ok(Ok(Some(bundle))) => self.process_release(bundle).await,
        };
        let interval = self.parts.config.poll();
        match polled {
            Ok(polled) => {
                self.failures = 0;
                if !matches!(polled, Polled::Unchanged | Polled::Announced) {
                    self.parts.source.reset();
                }
                telemetry::count_poll(polled.name());
                interval
            }
            Err(error) => {
                self.parts.source.reset();
                self.failures = self.failures.saturating_add(1);
                let pause = backoff(interval, self.failures, &self.parts.config);
                tracing::warn!(
                    error = format!("{error:#}"),
                    pause_ms = pause.as_millis() as u64,
                    "the poll of the source failed; the last accepted release stays"
                );
                telemetry::count_poll("failed");
                pause
            }
        }
    }

    async fn process_release(&mut self, bundle: ReleaseBundle) -> anyhow::Result<Polled> {
        if self.up_to_date.as_ref() == Some(&bundle) {
            return Ok(Polled::Unchanged);
        }
        let Some((release, bundle)) = self.verify(bundle).await? else {
            return Ok(Polled::Refused);
        };
        let Some(ComparisonBase {
            expected_seq,
            is_current,
            accepted,
        }) = self.accepted().await?
        else {
            return Ok(Polled::Retry);
        };
        if is_current && accepted.as_ref() == Some(&release.accepted()) {
            self.up_to_date = Some(bundle);
            return Ok(Polled::Unchanged);
        }
        let superseded = self.parts.superseded.borrow().clone();
        let admitted = admit(&release, accepted.as_ref(), &|id| superseded.contains(id));
        match admitted {
            Err(error) => {
                let faults = error.faults.iter().map(|fault| fault.name().to_owned());
                let faults: Vec<_> = faults.collect();
                self.refusals
                    .log("the polled release", &faults, error.to_string());
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
        // Canonicalising a large fleet takes long enough to delay other tasks.
        let verified = tokio::task::spawn_blocking(move || {
            verify_release(&bundle, &trust, now(), window).map(|release| (release, bundle))
        });
        match verified.await? {
            Ok(verified) => Ok(Some(verified)),
            Err(error) => {
                let fault = error.name().to_owned();
                let text = format!("{:#}", anyhow::Error::from(error));
                self.refusals.log("the polled release", &[fault], text);
                Ok(None)
            }
        }
    }

    /// `None` while the last announcement that can be read is not judged here. The newest release that was accepted
    /// counts, whatever was announced since and refused.
    async fn accepted(&self) -> anyhow::Result<Option<ComparisonBase>> {
        let newest = self.parts.store.newest().await?;
        let (expected_seq, seq) = (newest.last_seq, newest.release.map(|(seq, _)| seq));
        let state = self.parts.state.borrow().clone();
        let current = state.current.map(|current| current.seq);
        if seq.is_some() && seq != current && seq != state.refused_seq {
            return Ok(None);
        }
        let floor = &self.parts.floor;
        let floor = floor.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(ComparisonBase {
            expected_seq,
            is_current: seq.is_some() && current.is_some_and(|current| current <= expected_seq),
            accepted: floor.accepted().cloned(),
        }))
    }

    /// Stores the artifacts first: an announcement must not name missing ones.
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
                self.refusals.reset();
                self.up_to_date = Some(bundle);
                Ok(Polled::Announced)
            }
            Err(PublishError::Fenced { .. }) => Ok(Polled::Retry),
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
            Self::Retry => "later",
        }
    }
}

/// Pause after consecutive failures: doubles each time, up to the configured maximum.
fn backoff(interval: Duration, failures: u32, config: &SourceConfig) -> Duration {
    let most = Duration::from_secs(config.backoff_max_seconds).max(interval);
    interval.saturating_mul(1 << failures.min(16)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_after_failed_polls_doubles_up_to_the_maximum() {
        let config = SourceConfig::default();
        let pause = |failures| backoff(Duration::from_secs(30), failures, &config).as_secs();
        assert_eq!(
            [1, 2, 3, 4, 40].map(pause),
            [60, 120, 240, 300, 300],
            "seconds"
        );
    }
}
