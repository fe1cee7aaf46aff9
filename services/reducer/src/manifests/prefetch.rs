//! Prefetch of the manifests of new rollouts at their announcement: reading those of a large fleet
//! takes seconds, in which the planner verifies the release and plans.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nixfleet_bus::{AnnouncementsError, ManifestStore};
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ManifestHash, PinnedManifest, RolloutId};
use nixfleet_reducer::ManifestFetch;
use nixfleet_service::CancellationToken;

use super::fetch::fetch_pinned;
use super::prefetch_queue::PrefetchQueue;

/// Pause before the announcements are followed again after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// Manifests read before a log names them; an owner repeats a failed prefetch.
#[derive(Default)]
pub struct Prefetch {
    owned: Mutex<BTreeSet<Partition>>,
    queue: PrefetchQueue<PinnedManifest>,
}

impl Prefetch {
    /// Sets whether this process owns a partition.
    pub fn set_owned(&self, partition: Partition, owned: bool) {
        let mut partitions = self.owned();
        if owned {
            partitions.insert(partition);
        } else {
            partitions.remove(&partition);
        }
    }

    /// The prefetched content of this hash; waits while it is being read.
    pub async fn take(&self, hash: &ManifestHash) -> Option<PinnedManifest> {
        self.queue.take(hash).await
    }

    /// Follows the announcements and reads the manifests they name, until stopped.
    pub async fn follow(&self, store: &ManifestStore, partitions: u16, stop: &CancellationToken) {
        let work = self.queue.work(|hash| fetch(store.clone(), hash));
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_forever(store, partitions) => {}
            () = work => {}
        }
    }

    async fn follow_forever(&self, store: &ManifestStore, partitions: u16) {
        loop {
            if let Err(error) = self.try_follow(store, partitions).await {
                tracing::warn!(%error, "announcements cannot be followed");
            }
            tokio::time::sleep(FAILED_PAUSE).await;
        }
    }

    async fn try_follow(
        &self,
        store: &ManifestStore,
        partitions: u16,
    ) -> Result<(), AnnouncementsError> {
        // Rollouts of the current announcement are open already, or their owner reads the manifest.
        // A release that is signed again opens no rollout.
        let current = store.current().await?;
        let mut known = current.map_or_else(BTreeSet::new, |(_, current)| rollouts_of(&current));
        let mut announcements = store.follow("reducer");
        loop {
            let (_, release) = announcements.next().await?;
            self.queue_new_rollouts(&release, &known, partitions);
            known = rollouts_of(&release);
        }
    }

    fn queue_new_rollouts(
        &self,
        release: &ReleaseAnnouncement,
        known: &BTreeSet<RolloutId>,
        partitions: u16,
    ) {
        let owned = self.owned();
        let new = release.rollouts.iter().filter(|(channel, rollout)| {
            let partition = Partition::of(channel, partitions);
            owned.contains(&partition) && !known.contains(&rollout.rollout_id)
        });
        let new: Vec<_> = new
            .map(|(_, rollout)| rollout.artifact.hash.clone())
            .collect();
        if !new.is_empty() {
            self.queue.replace(new);
        }
    }

    fn owned(&self) -> MutexGuard<'_, BTreeSet<Partition>> {
        // Every change is a single call, so a panic elsewhere leaves the set consistent.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rollouts_of(release: &ReleaseAnnouncement) -> BTreeSet<RolloutId> {
    let rollouts = release.rollouts.values();
    rollouts.map(|rollout| rollout.rollout_id.clone()).collect()
}

async fn fetch(store: ManifestStore, hash: ManifestHash) -> Option<PinnedManifest> {
    match fetch_pinned(&store, &hash).await {
        Ok(ManifestFetch::Pinned(pinned)) => {
            tracing::info!(rollout = %pinned.rollout_id, %hash, "manifest prefetched");
            Some(pinned)
        }
        Ok(ManifestFetch::Invalid | ManifestFetch::Missing(_)) | Err(_) => None,
    }
}
