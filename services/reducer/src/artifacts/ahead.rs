//! Manifests of new rollouts, fetched when they are announced: reading those of a large fleet takes
//! seconds, in which the planner verifies the release and decides.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nixfleet_bus::{AnnouncementsError, ManifestStore};
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ManifestHash, PinnedManifest, RolloutId};
use nixfleet_reducer::Fetched;
use nixfleet_service::CancellationToken;

use super::pinned::read;
use super::queue::Queue;

/// Pause before the announcements are followed again after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// What is read before a log names it. Whatever fails here is read again by whoever needs it.
#[derive(Default)]
pub struct Ahead {
    owned: Mutex<BTreeSet<Partition>>,
    queue: Queue<PinnedManifest>,
}

impl Ahead {
    /// Notes whether this process owns a partition.
    pub fn own(&self, partition: Partition, owned: bool) {
        let mut all = self.owned();
        if owned {
            all.insert(partition);
        } else {
            all.remove(&partition);
        }
    }

    /// What was read, or is being read, under this hash.
    pub async fn take(&self, hash: &ManifestHash) -> Option<PinnedManifest> {
        self.queue.take(hash).await
    }

    /// Follows the announcements until stopped, and reads what they name.
    pub async fn follow(&self, store: &ManifestStore, partitions: u16, stop: &CancellationToken) {
        let work = self.queue.work(|hash| fetch(store.clone(), hash));
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_on(store, partitions) => {}
            () = work => {}
        }
    }

    async fn follow_on(&self, store: &ManifestStore, partitions: u16) {
        loop {
            if let Err(error) = self.try_follow(store, partitions).await {
                tracing::debug!(%error, "announcements cannot be followed");
            }
            tokio::time::sleep(FAILED_PAUSE).await;
        }
    }

    async fn try_follow(
        &self,
        store: &ManifestStore,
        partitions: u16,
    ) -> Result<(), AnnouncementsError> {
        // What was announced before is open already, or is read when it is opened. A release that is
        // signed again opens nothing.
        let current = store.current().await?;
        let mut known = current.map_or_else(BTreeSet::new, |(_, current)| rollouts_of(&current));
        let mut announcements = store.follow();
        loop {
            let (_, release) = announcements.next().await?;
            self.announced(&release, &known, partitions);
            known = rollouts_of(&release);
        }
    }

    fn announced(
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
        // Every change is one call: a panic elsewhere leaves nothing half done.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rollouts_of(release: &ReleaseAnnouncement) -> BTreeSet<RolloutId> {
    let rollouts = release.rollouts.values();
    rollouts.map(|rollout| rollout.rollout_id.clone()).collect()
}

async fn fetch(store: ManifestStore, hash: ManifestHash) -> Option<PinnedManifest> {
    match read(&store, &hash).await {
        Ok(Fetched::Pins(pinned)) => {
            tracing::info!(rollout = %pinned.rollout_id, %hash, "manifest read ahead");
            Some(pinned)
        }
        Ok(Fetched::Useless | Fetched::Missing(_)) | Err(_) => None,
    }
}
