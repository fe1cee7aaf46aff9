//! Keeps one lease alive until it is given back or lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::record::{Current, Holder, Record, Written};
use super::{LeaseConfig, MARGIN};

/// Pause after a renewal nobody answered.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// Longest time giving back may take; afterwards the time to live does it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// The task behind a lease.
pub(super) struct Keeper {
    pub(super) service: Arc<str>,
    pub(super) key: String,
    pub(super) record: Record,
    pub(super) holder: Holder,
    pub(super) revision: u64,
    /// On the monotonic clock, the margin before the server's expiry.
    pub(super) valid_until: Instant,
    pub(super) config: LeaseConfig,
    pub(super) lost: CancellationToken,
    pub(super) release: CancellationToken,
}

impl Keeper {
    /// Renews until the lease is given back or lost.
    pub(super) async fn run(mut self) {
        let mut next = Instant::now() + self.config.renew();
        loop {
            tokio::select! {
                () = self.release.cancelled() => return self.give_back().await,
                () = tokio::time::sleep_until(next.min(self.valid_until)) => {}
            }
            if Instant::now() >= self.valid_until {
                return self.lose("it could not be renewed in time");
            }
            // A renewal that takes longer than the lease lasts is as good as none.
            match tokio::time::timeout_at(self.valid_until, self.renew()).await {
                Ok(Renewed::Yes) => next = Instant::now() + self.config.renew(),
                Ok(Renewed::Taken) => return self.lose("another instance holds it"),
                Ok(Renewed::Unknown(reason)) => {
                    tracing::debug!(key = self.key, reason, "lease renewal not answered");
                    next = Instant::now() + RETRY_AFTER;
                }
                Err(_) => return self.lose("it could not be renewed in time"),
            }
        }
    }

    async fn renew(&mut self) -> Renewed {
        let asked_at = Instant::now();
        let before = self.holder.clone();
        self.holder.renewal += 1;
        match self.record.write(&self.holder, self.revision).await {
            Written::Stored(revision) => {
                self.extend(revision, asked_at);
                Renewed::Yes
            }
            Written::Conflict => self.resolve(&before).await,
            Written::Unknown(reason) => Renewed::Unknown(reason),
        }
    }

    /// Another revision is there: that of an earlier renewal of ours, or somebody else's.
    async fn resolve(&mut self, before: &Holder) -> Renewed {
        match self.record.read().await {
            Ok(Current::Held(revision, Some(holder)))
                if holder.process == before.process && holder.renewal <= self.holder.renewal =>
            {
                // Its time is not known exactly, so it does not extend ours; the next one does.
                self.revision = revision;
                Renewed::Unknown("an earlier renewal was stored".to_owned())
            }
            Ok(Current::Held(..) | Current::Free(_)) => Renewed::Taken,
            Err(reason) => Renewed::Unknown(reason),
        }
    }

    fn extend(&mut self, revision: u64, asked_at: Instant) {
        self.revision = revision;
        self.valid_until = asked_at + self.config.ttl() - MARGIN;
    }

    fn lose(&self, reason: &str) {
        self.note("lost");
        tracing::warn!(service = %self.service, key = self.key, reason, "lease lost");
        self.lost.cancel();
    }

    async fn give_back(&self) {
        self.lost.cancel();
        match tokio::time::timeout(RELEASE_PATIENCE, self.record.delete(self.revision)).await {
            Ok(Written::Stored(_)) => {
                self.note("released");
                tracing::info!(service = %self.service, key = self.key, "lease released");
            }
            Ok(Written::Conflict | Written::Unknown(_)) | Err(_) => {
                self.note("abandoned");
                tracing::info!(service = %self.service, key = self.key,
                    "lease not released; it expires by itself");
            }
        }
    }

    /// Counts a change of hands.
    pub(super) fn note(&self, change: &'static str) {
        metrics::counter!("nixfleet_lease_changes_total",
            "service" => self.service.to_string(), "change" => change)
        .increment(1);
    }
}

/// How a renewal ended.
enum Renewed {
    Yes,
    Taken,
    Unknown(String),
}
