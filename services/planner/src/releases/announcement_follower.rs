//! Follows and verifies release announcements, and takes those that are newer than what was accepted before. Behind
//! one that is refused, the newest one before it that verifies is planned.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nixfleet_bus::{AnnouncementsError, ManifestError, ManifestStore};
use nixfleet_plan::release::ChannelManifest;
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_trust::{
    AnnouncedReleaseError, Fault, Newest, NotNewer, Release, ReleaseFloor, verify_announced,
};
use tokio::sync::watch;

use super::latest_release::{AnnouncedRelease, ReleaseState, SupersededRollouts};
use super::trust_settings::{TrustSettings, now};

/// Pause before an announcement is loaded again after an unavailable server.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(2);
/// Pause after a refusal: only another trust file, restored objects or another release change it.
const RETRY_REFUSED: Duration = Duration::from_secs(15);

/// Why an announced release was not accepted.
enum Failure {
    /// Something did not answer.
    Unavailable(anyhow::Error),
    Refused(AnnouncedReleaseError),
    NotNewer(NotNewer),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Unavailable(error)
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// What became of an announcement that was judged.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// `retry` unless another try cannot help.
    Refused {
        retry: Option<Duration>,
    },
}

/// Task that follows the announcements.
pub struct AnnouncementFollower {
    store: ManifestStore,
    trust: TrustSettings,
    state: watch::Sender<ReleaseState>,
    floor: Arc<Mutex<ReleaseFloor>>,
    superseded: watch::Receiver<SupersededRollouts>,
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
        }
    }

    /// Accepts every announced release that verifies and is newer; never returns.
    pub async fn run(self) {
        let mut announcements = self.store.follow("planner");
        loop {
            let pause = match announcements.next().await {
                Ok((seq, announcement)) => {
                    let pause = self.accept_newest(seq, &announcement).await;
                    if let Some(pause) = pause {
                        announcements.repeat(pause, (seq, announcement));
                    }
                    continue;
                }
                Err(error) => {
                    warn_unavailable(&error.into());
                    RETRY_UNAVAILABLE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Accepts the last announcement, or the newest one before it that verifies. A poll waits until this is done.
    async fn accept_newest(
        &self,
        seq: u64,
        announcement: &ReleaseAnnouncement,
    ) -> Option<Duration> {
        let judged = match self.judge(seq, announcement).await {
            Ok(Verdict::Accepted) => return None,
            Ok(Verdict::Refused { retry }) => self.fall_back(seq).await.map(|()| retry),
            Err(error) => Err(error),
        };
        match judged {
            Ok(retry) => {
                self.state
                    .send_if_modified(|state| state.refused_seq.replace(seq) != Some(seq));
                retry
            }
            Err(error) => {
                warn_unavailable(&error);
                Some(RETRY_UNAVAILABLE)
            }
        }
    }

    /// Accepts the newest of the announcements before this one that verifies, unless the accepted one is newer.
    async fn fall_back(&self, refused: u64) -> anyhow::Result<()> {
        let current = self
            .state
            .borrow()
            .current
            .as_ref()
            .map(|current| current.seq);
        let earlier = self.store.earlier_than(refused).await;
        let mut earlier = earlier.map_err(unread)?;
        while let Some((seq, announcement)) = earlier.next().await.map_err(unread)? {
            if Some(seq) == current || self.judge(seq, &announcement).await? == Verdict::Accepted {
                break;
            }
        }
        Ok(())
    }

    /// # Errors
    /// When something does not answer.
    async fn judge(&self, seq: u64, announcement: &ReleaseAnnouncement) -> anyhow::Result<Verdict> {
        let (faults, error, retry): (Vec<&'static str>, anyhow::Error, _) = match self
            .load(announcement)
            .await
        {
            Ok((newest, release)) => {
                self.accept(AnnouncedRelease {
                    seq,
                    newest,
                    release,
                });
                return Ok(Verdict::Accepted);
            }
            Err(Failure::Unavailable(error)) => return Err(error),
            Err(Failure::Refused(error)) => (vec![error.name()], error.into(), Some(RETRY_REFUSED)),
            Err(Failure::NotNewer(error)) => {
                let faults = error.faults.iter().map(Fault::name).collect();
                (faults, error.into(), None)
            }
        };
        self.store
            .report_refusal(seq, &faults, &format!("{error:#}"));
        Ok(Verdict::Refused { retry })
    }

    fn accept(&self, release: AnnouncedRelease) {
        let (seq, signed_at) = (release.seq, release.newest.accepted().signed_at);
        tracing::info!(seq, %signed_at, "accepted the announced release");
        self.state.send_replace(ReleaseState {
            current: Some(Arc::new(release)),
            refused_seq: None,
        });
    }

    /// The age is not checked: gates do that.
    async fn load(&self, announcement: &ReleaseAnnouncement) -> Result<Planned, Failure> {
        let objects = self.store.get_all(announcement).await?;
        let objects = objects.map(|objects| objects.into_iter().map(Vec::from).collect());
        let trust = self.trust.read().await?;
        // Canonicalising a large fleet takes long enough to delay other tasks.
        let (floor, superseded) = (Arc::clone(&self.floor), self.superseded.borrow().clone());
        let announcement = announcement.clone();
        let accepted = tokio::task::spawn_blocking(move || {
            let verified = verify_announced(&announcement, objects, &trust, now());
            let (release, _) = verified.map_err(Failure::Refused)?;
            let mut floor = floor.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = floor.raise(&release, &|id| superseded.contains(id));
            Ok((newest.map_err(Failure::NotNewer)?, planned(release)))
        });
        accepted.await.map_err(anyhow::Error::from)?
    }
}

fn unread(error: AnnouncementsError) -> anyhow::Error {
    anyhow::Error::from(error).context("reading the announcements")
}

fn warn_unavailable(error: &anyhow::Error) {
    let error = format!("{error:#}");
    tracing::warn!(error, "the announced release cannot be loaded");
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
