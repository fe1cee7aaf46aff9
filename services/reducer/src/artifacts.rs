//! What manifests pin, fetched from the object store by hash.

use std::sync::Arc;

use nixfleet_bus::ManifestStore;
use nixfleet_proto::ManifestHash;
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{Ended, Fetched};
use nixfleet_service::CancellationToken;

mod ahead;
mod pinned;
mod queue;

use ahead::Ahead;
use pinned::read;

/// Access to what manifests pin, for all partitions of a process; cheap to clone.
///
/// Those of an announced release are read one after the other. Beside them an owner reads what its log
/// names and nobody announced to it, one at a time as well: after a takeover or a failure.
#[derive(Clone)]
pub struct Artifacts {
    store: ManifestStore,
    ahead: Arc<Ahead>,
}

impl Artifacts {
    /// Of this store.
    pub fn new(store: ManifestStore) -> Self {
        let ahead = Arc::default();
        Self { store, ahead }
    }

    /// Notes whether this process owns a partition.
    pub fn own(&self, partition: Partition, owned: bool) {
        self.ahead.own(partition, owned);
    }

    /// Reads what is announced for the partitions owned, until stopped.
    pub async fn follow(self, partitions: u16, stop: CancellationToken) {
        self.ahead.follow(&self.store, partitions, &stop).await;
    }

    /// Fetches a manifest with its fleet and reads what it pins.
    ///
    /// # Errors
    /// When the object store does not answer.
    pub async fn fetch(&self, hash: &ManifestHash) -> Result<Fetched, Ended> {
        match self.ahead.take(hash).await {
            Some(pinned) => Ok(Fetched::Pins(pinned)),
            None => read(&self.store, hash).await,
        }
    }
}
