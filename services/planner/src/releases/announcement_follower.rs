//! Follows and verifies release announcements, and takes those that are newer than what was accepted before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nixfleet_bus::ManifestStore;
use nixfleet_plan::release::ChannelManifest;
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_trust::{
    Fault, Newest, NotNewer, Release, ReleaseBundle, ReleaseError, ReleaseFloor, verify_release,
};
use tokio::sync::watch;

use super::latest_release::{
    AnnouncedRelease, RefusalReason, RefusedAnnouncement, ReleaseState, SupersededRollouts,
};
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
    NotNewer(NotNewer),
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
    floor: Arc<Mutex<ReleaseFloor>>,
    superseded: watch::Receiver<SupersededRollouts>,
    refusals: RefusalLog,
}

impl AnnouncementFollower {
    pub fn new(
        store: ManifestStore,
        trust: TrustSettings,
        state: watch::Sender<ReleaseState>,
        (floor, superseded): (
            Arc<Mutex<ReleaseFloor>>,
            watch::Receiver<SupersededRollouts>,
        ),
    ) -> Self {
        Self {
            store,
            trust,
            state,
            floor,
            superseded,
            refusals: RefusalLog::default(),
        }
    }

    /// Accepts every announced release that verifies and is newer; never returns.
    pub async fn run(mut self) {
        let mut announcements = self.store.follow("planner");
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
            Ok((newest, release)) => {
                self.refusals.reset();
                let signed_at = newest.accepted().signed_at;
                tracing::info!(seq, %signed_at, "accepted the announced release");
                let current = Some(Arc::new(AnnouncedRelease {
                    seq,
                    newest,
                    release,
                }));
                self.state.send_replace(ReleaseState {
                    current,
                    refused: None,
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
                self.refuse(seq, RefusalReason::Unverified, (vec![fault], text));
                Some(RETRY_REFUSED)
            }
            Err(Failure::NotNewer(error)) => {
                let faults = error.faults.iter().map(Fault::name).map(ToOwned::to_owned);
                let faults = faults.collect();
                self.refuse(seq, RefusalReason::NotNewer, (faults, error.to_string()));
                None
            }
        }
    }

    fn refuse(&mut self, seq: u64, reason: RefusalReason, (faults, text): (Vec<String>, String)) {
        let what = format!("the announced release {seq}");
        self.refusals.log(&what, &faults, text);
        let refused = RefusedAnnouncement { seq, reason };
        self.state
            .send_modify(|state| state.refused = Some(refused));
    }

    /// The age is not checked: the release was fresh when it was admitted, and gates check its age.
    async fn load(&self, announcement: &ReleaseAnnouncement) -> Result<Planned, Failure> {
        let objects = self.store.get_all(announcement).await;
        let objects = objects.map_err(anyhow::Error::from)?.into_iter();
        let objects = objects.map(|bytes| bytes.map(Vec::from));
        let bundle = ReleaseBundle::assemble(announcement, objects).map_err(anyhow::Error::from)?;
        let trust = self.trust.read().await?;
        // Canonicalising a large fleet takes long enough to delay other tasks.
        let (floor, superseded) = (Arc::clone(&self.floor), self.superseded.borrow().clone());
        let accepted = tokio::task::spawn_blocking(move || {
            let release = verify_release(&bundle, &trust, now(), Duration::MAX);
            let release = release.map_err(Failure::Refused)?;
            let mut floor = floor.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = floor.raise(&release, &|id| superseded.contains(id));
            Ok((newest.map_err(Failure::NotNewer)?, planned(release)))
        });
        accepted.await.map_err(anyhow::Error::from)?
    }
}

/// The accepted release for the next admission, and the release for plans.
type Planned = (Newest, nixfleet_plan::Release);

fn planned(release: Release) -> nixfleet_plan::Release {
    let (fleet, manifests) = release.into_payloads();
    let manifests = manifests.into_iter().map(|(channel, (hash, manifest))| {
        let manifest = Arc::new(manifest);
        (channel, ChannelManifest { manifest, hash })
    });
    nixfleet_plan::Release::new(Arc::new(fleet), manifests.collect())
}
