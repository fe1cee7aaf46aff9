//! The signed artifacts as they were received: the current release, and older rollout manifests.
//!
//! Follows the announcements and believes none of them: everything is verified with the trust file
//! of this process before it is served or used, and has to be newer than what was accepted before. A release
//! that is refused leaves the last good one in place.

mod artifacts;
mod follower;
mod host_channels;
pub(crate) mod rollout_manifests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use anyhow::Context as _;
use nixfleet_bus::{AnnouncementsError, ManifestError, ManifestStore};
use nixfleet_proto::RolloutId;
use nixfleet_proto::fleet::{ArtifactRef, ReleaseAnnouncement};
use nixfleet_store::Store;
use nixfleet_trust::{AnnouncedReleaseError, NotNewer, ReleaseFloor, TrustFile, verify_announced};

use crate::clock::now;
use crate::problem::ApiError;

pub use artifacts::{Announced, Artifact, Artifacts, Current, RolloutArtifact};

/// Name of the part in readiness reports.
pub const RELEASE_PART: &str = "release";

/// Older rollout manifests kept in memory after someone asked for them.
const OLDER_MAX: usize = 64;

/// Older rollout manifests whose place is remembered, some 300 bytes each.
const ANNOUNCED_MAX: usize = 100_000;

/// Why an announced release is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Something did not answer, or a file could not be read: it says nothing of the announcement.
    #[error("the announced release cannot be loaded")]
    Unavailable(#[source] anyhow::Error),
    /// It does not verify here, or the bus does not hold what it names.
    #[error("the announced release is refused")]
    Refused(#[source] AnnouncedReleaseError),
    /// An earlier release was announced again.
    #[error("the announced release is refused")]
    NotNewer(#[source] NotNewer),
}

impl From<ManifestError> for LoadError {
    fn from(error: ManifestError) -> Self {
        Self::Unavailable(error.into())
    }
}

impl From<AnnouncementsError> for LoadError {
    fn from(error: AnnouncementsError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// The current release and what may replace it.
#[derive(Default)]
struct Slot {
    floor: ReleaseFloor,
    current: Option<Arc<Current>>,
}

/// The current release, and the rollout manifests of earlier ones.
pub struct Releases {
    store: ManifestStore,
    database: Store,
    trust_file: PathBuf,
    slot: RwLock<Slot>,
    /// What this gateway verified and is announcing.
    pushed: RwLock<Weak<Artifacts>>,
    /// Sequence of the last announcement that was accepted, or refused because it is not newer.
    judged: AtomicU64,
    /// Why the last announcement is not the current release; empty when it is.
    refusal: RwLock<String>,
    /// Every rollout manifest that was ever announced and is still known to the stream.
    announced: RwLock<BTreeMap<RolloutId, ArtifactRef>>,
    older: RwLock<BTreeMap<RolloutId, RolloutArtifact>>,
    /// True when hosts are looked up by name, for which each release is prepared.
    with_host_channels: bool,
}

impl Releases {
    /// Nothing is known yet. The database knows which rollouts were superseded, after every restart.
    pub fn new(store: ManifestStore, database: Store, trust_file: PathBuf) -> Self {
        Self {
            store,
            database,
            trust_file,
            slot: RwLock::default(),
            pushed: RwLock::default(),
            judged: AtomicU64::new(0),
            refusal: RwLock::default(),
            announced: RwLock::default(),
            older: RwLock::default(),
            with_host_channels: false,
        }
    }

    /// The same with hosts that can be looked up as soon as a release is current.
    pub fn with_host_channels(self) -> Self {
        Self {
            with_host_channels: true,
            ..self
        }
    }

    /// The artifact store of the bus.
    pub fn store(&self) -> &ManifestStore {
        &self.store
    }

    /// The current release.
    ///
    /// # Errors
    /// 503 before the first one was verified.
    pub fn current(&self) -> Result<Arc<Current>, ApiError> {
        let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        slot.current.clone().ok_or_else(|| {
            ApiError::unavailable("not-ready", "no verified release is known yet", 30)
        })
    }

    /// Sequence of the last announcement that was accepted, or refused because it is not newer.
    pub fn judged_seq(&self) -> u64 {
        self.judged.load(Ordering::Relaxed)
    }

    /// Why the last announcement is not the current release.
    pub fn refusal(&self) -> Option<String> {
        let refusal = self.refusal.read().unwrap_or_else(PoisonError::into_inner);
        (!refusal.is_empty()).then(|| refusal.clone())
    }

    /// The trust file as it is now.
    pub async fn trust(&self) -> anyhow::Result<TrustFile> {
        let path = &self.trust_file;
        let bytes = tokio::fs::read(path)
            .await
            .with_context(|| format!("reading {}", path.display()))?;
        TrustFile::parse(&bytes).with_context(|| format!("parsing {}", path.display()))
    }

    /// Loads and verifies an announced release, whatever its age: agents judge that themselves.
    async fn load(
        &self,
        seq: u64,
        announcement: &ReleaseAnnouncement,
    ) -> Result<Announced, LoadError> {
        let objects = self.store.get_all(announcement).await?;
        let objects = objects.map(|objects| objects.into_iter().map(Vec::from).collect());
        let trust = self.trust().await.map_err(LoadError::Unavailable)?;
        // Canonicalising and hashing a large fleet takes long enough to keep other requests waiting.
        let (with_host_channels, announcement) = (self.with_host_channels, announcement.clone());
        let verified = tokio::task::spawn_blocking(move || {
            let (release, bundle) = verify_announced(&announcement, objects, &trust, now())?;
            let artifacts = Artifacts::new(release, bundle);
            if with_host_channels {
                artifacts.host_channels();
            }
            let artifacts = Arc::new(artifacts);
            Ok(Announced { seq, artifacts })
        });
        match verified.await {
            Ok(verified) => verified.map_err(LoadError::Refused),
            Err(error) => Err(LoadError::Unavailable(error.into())),
        }
    }

    /// Takes a verified release over when it is newer than the current one, and none of its rollouts was
    /// superseded. Its manifests stay available when the next one comes, also while the follower of rollout
    /// announcements is behind.
    ///
    /// # Errors
    /// [`LoadError::NotNewer`]; `Unavailable` when the database does not answer and nothing else tells the
    /// age of the release.
    pub async fn install(&self, announced: Announced) -> Result<(), LoadError> {
        let release = &announced.artifacts.release;
        let superseded = self.superseded(release).await?;
        let (seq, signed_at) = (announced.seq, release.signed_at());
        {
            let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
            let newest = slot.floor.raise(release, &|id| superseded.contains(id));
            let newest = newest.map_err(LoadError::NotNewer)?;
            for rollout in release.announcement().rollouts.into_values() {
                self.remember(rollout.rollout_id, rollout.artifact);
            }
            slot.current = Some(Arc::new(Current::new(announced, newest)));
        }
        self.judged.store(seq, Ordering::Relaxed);
        self.set_refusal(String::new());
        tracing::info!(seq, %signed_at, "release");
        metrics::gauge!("nixfleet_release_signed_at_seconds").set(signed_at.timestamp() as f64);
        Ok(())
    }

    /// Rollouts of a release that were ever superseded. A process that has accepted a release compares with
    /// that one when the database does not answer.
    async fn superseded(
        &self,
        release: &nixfleet_trust::Release,
    ) -> Result<BTreeSet<RolloutId>, LoadError> {
        let ids = release.content().rollouts.values().map(|(id, _)| id);
        let ids: Vec<RolloutId> = ids.cloned().collect();
        match self.database.superseded_rollouts(&ids).await {
            Ok(superseded) => Ok(superseded),
            Err(_) if self.current().is_ok() => Ok(BTreeSet::new()),
            Err(error) => Err(LoadError::Unavailable(error.into())),
        }
    }

    fn set_refusal(&self, reason: String) {
        let mut refusal = self.refusal.write().unwrap_or_else(PoisonError::into_inner);
        *refusal = reason;
    }

    /// Says what is about to be announced, so that it need not be fetched and verified again.
    pub fn push(&self, artifacts: &Arc<Artifacts>) {
        let mut pushed = self.pushed.write().unwrap_or_else(PoisonError::into_inner);
        *pushed = Arc::downgrade(artifacts);
    }
}
