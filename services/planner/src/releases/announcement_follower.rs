//! Follows and verifies release announcements.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::ManifestStore;
use nixfleet_plan::release::ChannelManifest;
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_trust::{AcceptedRelease, Release, ReleaseBundle, ReleaseError, verify_release};
use tokio::sync::watch;

use super::latest_release::{AnnouncedRelease, ReleaseState};
use super::refusal_log::RefusalLog;
use super::trust_settings::{TrustSettings, now};

/// Pause before an announcement is loaded again after an unavailable server.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(2);
/// Pause after a refusal: only another trust file or release changes it.
const RETRY_REFUSED: Duration = Duration::from_secs(15);

/// Why an announced release was not accepted.
enum Failure {
    Unavailable(anyhow::Error),
    Refused(ReleaseError),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Unavailable(error)
    }
}

/// Task that follows the announcements.
pub struct AnnouncementFollower {
    store: ManifestStore,
    trust: TrustSettings,
    state: watch::Sender<ReleaseState>,
    refusals: RefusalLog,
}

impl AnnouncementFollower {
    pub fn new(
        store: ManifestStore,
        trust: TrustSettings,
        state: watch::Sender<ReleaseState>,
    ) -> Self {
        Self {
            store,
            trust,
            state,
            refusals: RefusalLog::default(),
        }
    }

    /// Accepts every announced release that verifies; never returns.
    pub async fn run(mut self) {
        let mut announcements = self.store.follow();
        let mut again: Option<(Duration, u64, ReleaseAnnouncement)> = None;
        loop {
            let pause = again.as_ref().map(|(pause, _, _)| *pause);
            let next = tokio::select! {
                next = announcements.next() => Some(next),
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => None,
            };
            let (seq, announcement) = match (next, again.take()) {
                (Some(Ok(next)), _) => next,
                (Some(Err(error)), before) => {
                    tracing::warn!(
                        error = format!("{:#}", anyhow::Error::from(error)),
                        "announcements cannot be followed"
                    );
                    again = before;
                    tokio::time::sleep(RETRY_UNAVAILABLE).await;
                    continue;
                }
                (None, Some((_, seq, announcement))) => (seq, announcement),
                (None, None) => continue,
            };
            let retry = self.accept(seq, &announcement).await;
            again = retry.map(|pause| (pause, seq, announcement));
        }
    }

    async fn accept(&mut self, seq: u64, announcement: &ReleaseAnnouncement) -> Option<Duration> {
        match self.load(announcement).await {
            Ok((accepted, release)) => {
                self.refusals.reset();
                tracing::info!(seq, signed_at = %accepted.signed_at, "accepted the announced release");
                let current = Some(Arc::new(AnnouncedRelease {
                    seq,
                    accepted,
                    release,
                }));
                self.state.send_replace(ReleaseState {
                    current,
                    refused_seq: None,
                });
                None
            }
            Err(Failure::Unavailable(error)) => {
                tracing::warn!(
                    seq,
                    error = format!("{error:#}"),
                    "the announced release cannot be loaded"
                );
                Some(RETRY_UNAVAILABLE)
            }
            Err(Failure::Refused(error)) => {
                let fault = error.name().to_owned();
                let text = format!("{:#}", anyhow::Error::from(error));
                let what = format!("the announced release {seq}");
                self.refusals.log(&what, &[fault], text);
                self.state
                    .send_modify(|state| state.refused_seq = Some(seq));
                Some(RETRY_REFUSED)
            }
        }
    }

    /// The age is not checked: the release was fresh when it was admitted, and gates check its age.
    async fn load(&self, announcement: &ReleaseAnnouncement) -> Result<Planned, Failure> {
        let objects = self.store.get_all(announcement).await;
        let objects = objects.map_err(anyhow::Error::from)?.into_iter();
        let objects = objects.map(|bytes| bytes.map(Vec::from));
        let bundle = ReleaseBundle::assemble(announcement, objects).map_err(anyhow::Error::from)?;
        let trust = self.trust.read().await?;
        // Canonicalising a large fleet takes long enough to delay other tasks.
        let verified = tokio::task::spawn_blocking(move || {
            verify_release(&bundle, &trust, now(), Duration::MAX).map(planned)
        });
        let verified = verified.await.map_err(anyhow::Error::from)?;
        verified.map_err(Failure::Refused)
    }
}

/// The accepted release for the next admission, and the release for plans.
type Planned = (AcceptedRelease, nixfleet_plan::Release);

fn planned(release: Release) -> Planned {
    let accepted = release.accepted();
    let (fleet, manifests) = release.into_payloads();
    let manifests = manifests.into_iter().map(|(channel, (hash, manifest))| {
        let manifest = Arc::new(manifest);
        (channel, ChannelManifest { manifest, hash })
    });
    let release = nixfleet_plan::Release::new(Arc::new(fleet), manifests.collect());
    (accepted, release)
}
