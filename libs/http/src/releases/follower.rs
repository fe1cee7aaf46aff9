//! Follows the announcements of releases. One that is refused stops nothing: the newest one before it that verifies
//! is the current release.
//!
//! Refused is what the bus and the trust file tell of the announcement itself; servers that do not answer are an
//! outage, and the same announcement is tried again.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nixfleet_bus::NewestAnnouncement;
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_service::{CancellationToken, Readiness};
use nixfleet_trust::Fault;

use super::{Announced, LoadError, RELEASE_PART, Releases};

/// Pause before an announcement is tried again when its objects could not be loaded.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(2);
/// Pause when it was refused: only a changed trust file, restored objects or a new release can help.
const RETRY_REFUSED: Duration = Duration::from_secs(15);

/// What an announcement came to.
#[derive(Debug)]
enum Verdict {
    Taken,
    /// For this reason; `is_final` when another try cannot help.
    Refused {
        reason: String,
        is_final: bool,
    },
}

impl Releases {
    /// Keeps the current release current until stopped, for a service, which is named in dead letters.
    pub async fn follow(
        &self,
        service: &'static str,
        readiness: Readiness,
        stop: CancellationToken,
    ) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_forever(service, &readiness) => {}
        }
    }

    async fn follow_forever(&self, service: &'static str, readiness: &Readiness) {
        let mut announcements = self.store.follow(service);
        loop {
            match announcements.next().await {
                Ok((seq, announcement)) => {
                    let pause = self.take_newest(seq, &announcement, readiness).await;
                    if let Some(pause) = pause {
                        announcements.repeat(pause, (seq, announcement));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "announcements cannot be followed");
                    tokio::time::sleep(RETRY_UNAVAILABLE).await;
                }
            }
        }
    }

    /// Takes the last announcement over, or the newest before it that verifies; returns the pause before it is tried
    /// again.
    async fn take_newest(
        &self,
        seq: u64,
        announcement: &ReleaseAnnouncement,
        readiness: &Readiness,
    ) -> Option<Duration> {
        let taken = match self.take(seq, announcement).await {
            Ok(verdict @ Verdict::Refused { .. }) => self.fall_back(seq).await.map(|()| verdict),
            taken => taken,
        };
        let (reason, pause) = match taken {
            Ok(Verdict::Taken) => (None, None),
            Ok(Verdict::Refused { reason, is_final }) => {
                if is_final {
                    self.judged.store(seq, Ordering::Relaxed);
                }
                (Some(reason), (!is_final).then_some(RETRY_REFUSED))
            }
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::new(error));
                tracing::warn!(seq, reason, "the announced release was not taken over");
                metrics::counter!("nixfleet_manifest_refusals_total", "fault" => "Unavailable")
                    .increment(1);
                (Some(reason), Some(RETRY_UNAVAILABLE))
            }
        };
        let reason = reason.unwrap_or_default();
        self.set_refusal(reason.clone());
        let is_known = self.current().is_ok();
        readiness.set_ready(RELEASE_PART, if is_known { Ok(()) } else { Err(reason) });
        pause
    }

    /// Takes the newest of the announcements before this one that verifies, unless the current release is newer.
    async fn fall_back(&self, refused: u64) -> Result<(), LoadError> {
        let current = self.current().ok().map(|current| current.seq);
        let mut earlier = self.store.earlier_than(refused).await?;
        while let Some((seq, announcement)) = earlier.next().await? {
            if Some(seq) == current {
                return Ok(());
            }
            if matches!(self.take(seq, &announcement).await?, Verdict::Taken) {
                tracing::warn!(
                    seq,
                    refused,
                    "fell back to the release before the refused one"
                );
                return Ok(());
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`LoadError::Unavailable`] alone.
    async fn take(
        &self,
        seq: u64,
        announcement: &ReleaseAnnouncement,
    ) -> Result<Verdict, LoadError> {
        let installed = match self.announced(seq, announcement).await {
            Ok(announced) => self.install(announced).await,
            Err(error) => Err(error),
        };
        match installed {
            Ok(()) => Ok(Verdict::Taken),
            Err(error) => self.refuse(seq, error),
        }
    }

    /// Reports a refusal.
    ///
    /// # Errors
    /// The error, when it is an outage.
    fn refuse(&self, seq: u64, error: LoadError) -> Result<Verdict, LoadError> {
        let (faults, is_final): (Vec<&'static str>, bool) = match &error {
            LoadError::Unavailable(_) => return Err(error),
            LoadError::Refused(error) => (vec![error.name()], false),
            LoadError::NotNewer(error) => (error.faults.iter().map(Fault::name).collect(), true),
        };
        let reason = format!("{:#}", anyhow::Error::new(error));
        self.store.report_refusal(seq, &faults, &reason);
        Ok(Verdict::Refused { reason, is_final })
    }

    /// The announced release as it was pushed here, or as it was loaded.
    async fn announced(
        &self,
        seq: u64,
        announcement: &ReleaseAnnouncement,
    ) -> Result<Announced, LoadError> {
        let pushed = {
            let pushed = self.pushed.read().unwrap_or_else(PoisonError::into_inner);
            pushed.upgrade()
        };
        match pushed.filter(|pushed| pushed.release.announcement() == *announcement) {
            Some(artifacts) => Ok(Announced { seq, artifacts }),
            None => self.load(seq, announcement).await,
        }
    }

    /// The newest announced release that verifies here, or the one that is current here, whichever was signed later:
    /// the bus may announce an earlier one again. `None` without any. A push is compared with it.
    ///
    /// # Errors
    /// [`LoadError::Unavailable`] alone.
    pub async fn newest_verified(
        &self,
        newest: NewestAnnouncement,
    ) -> Result<Option<Announced>, LoadError> {
        let current = self.current().ok().map(|current| Announced {
            seq: current.seq,
            artifacts: current.artifacts.clone(),
        });
        let mut earlier = None;
        let mut next = newest.release;
        while let Some((seq, announcement)) = next {
            if current.as_ref().is_some_and(|current| current.seq == seq) {
                return Ok(current);
            }
            match self.load(seq, &announcement).await {
                Ok(found) => {
                    let signed_at = found.artifacts.release.signed_at();
                    let is_later =
                        |here: &Announced| here.artifacts.release.signed_at() > signed_at;
                    return Ok(Some(current.filter(is_later).unwrap_or(found)));
                }
                Err(error) => drop(self.refuse(seq, error)?),
            }
            let earlier = match &mut earlier {
                Some(earlier) => earlier,
                None => earlier.insert(self.store.earlier_than(seq).await?),
            };
            next = earlier.next().await?;
        }
        Ok(current)
    }
}
