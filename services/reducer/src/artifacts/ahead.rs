//! Manifests of new rollouts, fetched when they are announced: reading those of a large fleet takes
//! seconds, in which the planner verifies the release and decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nixfleet_bus::{AnnouncementsError, ManifestStore};
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ManifestHash, PinnedManifest, RolloutId};
use nixfleet_reducer::Fetched;
use nixfleet_service::CancellationToken;
use tokio::task::JoinHandle;

/// Pause before the announcements are followed again after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// What is fetched before a log names it; cheap to clone. Whatever fails here is fetched again by
/// whoever needs it.
#[derive(Clone, Default)]
pub struct Ahead(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    owned: BTreeSet<Partition>,
    /// Of the last announcement: a release that is signed again opens nothing.
    known: BTreeSet<RolloutId>,
    fetching: BTreeMap<ManifestHash, JoinHandle<Option<PinnedManifest>>>,
}

impl Ahead {
    /// Notes whether this process owns a partition.
    pub fn own(&self, partition: Partition, owned: bool) {
        let mut state = self.state();
        if owned {
            state.owned.insert(partition);
        } else {
            state.owned.remove(&partition);
        }
    }

    /// What was fetched, or is being fetched, under this hash.
    pub(super) async fn take(&self, hash: &ManifestHash) -> Option<PinnedManifest> {
        let fetching = self.state().fetching.remove(hash)?;
        fetching.await.ok().flatten()
    }

    /// Follows the announcements until stopped.
    pub async fn follow(self, store: ManifestStore, partitions: u16, stop: CancellationToken) {
        loop {
            let failed = tokio::select! {
                () = stop.cancelled() => return,
                failed = self.try_follow(&store, partitions) => failed,
            };
            if let Err(error) = failed {
                tracing::debug!(%error, "announcements cannot be followed");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(FAILED_PAUSE) => {}
            }
        }
    }

    async fn try_follow(
        &self,
        store: &ManifestStore,
        partitions: u16,
    ) -> Result<(), AnnouncementsError> {
        // What was announced before is open already, or is fetched when it is opened.
        if let Some((_, current)) = store.current().await? {
            self.state().known = rollouts_of(&current);
        }
        let mut announcements = store.follow();
        loop {
            let (_, release) = announcements.next().await?;
            self.announced(&release, store, partitions);
        }
    }

    fn announced(&self, release: &ReleaseAnnouncement, store: &ManifestStore, partitions: u16) {
        let mut state = self.state();
        let known = std::mem::replace(&mut state.known, rollouts_of(release));
        let new = release.rollouts.iter().filter(|(channel, rollout)| {
            let partition = Partition::of(channel, partitions);
            state.owned.contains(&partition) && !known.contains(&rollout.rollout_id)
        });
        let new: Vec<_> = new
            .map(|(_, rollout)| rollout.artifact.hash.clone())
            .collect();
        if new.is_empty() {
            return;
        }
        for (_, outdated) in std::mem::take(&mut state.fetching) {
            outdated.abort();
        }
        for hash in new {
            let (store, name) = (store.clone(), hash.clone());
            let fetching = tokio::spawn(async move { fetch(&store, &name).await });
            state.fetching.insert(hash, fetching);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere costs what was fetched ahead at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rollouts_of(release: &ReleaseAnnouncement) -> BTreeSet<RolloutId> {
    let rollouts = release.rollouts.values();
    rollouts.map(|rollout| rollout.rollout_id.clone()).collect()
}

async fn fetch(store: &ManifestStore, hash: &ManifestHash) -> Option<PinnedManifest> {
    match super::read(store, hash).await {
        Ok(Fetched::Pins(pinned)) => {
            tracing::info!(rollout = %pinned.rollout_id, %hash, "manifest fetched ahead");
            Some(pinned)
        }
        Ok(Fetched::Useless | Fetched::Missing(_)) | Err(_) => None,
    }
}
