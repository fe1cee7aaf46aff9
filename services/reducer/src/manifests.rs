//! Pinned content of manifests, fetched from the object store by hash.

use std::sync::Arc;

use nixfleet_bus::ManifestStore;
use nixfleet_proto::ManifestHash;
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{ManifestFetch, OwnershipEnd};
use nixfleet_service::CancellationToken;

mod fetch;
mod prefetch;
mod prefetch_queue;

use fetch::fetch_pinned;
use prefetch::Prefetch;

/// Reader of pinned content for all partitions of a process; cheap to clone.
///
/// The manifests of an announced release are prefetched one after the other. An owner reads a
/// manifest that was not announced itself, also one at a time: after a takeover or a failure.
#[derive(Clone)]
pub struct ManifestReader {
    store: ManifestStore,
    prefetch: Arc<Prefetch>,
}

impl ManifestReader {
    pub fn new(store: ManifestStore) -> Self {
        let prefetch = Arc::default();
        Self { store, prefetch }
    }

    /// Sets whether this process owns a partition.
    pub fn set_owned(&self, partition: Partition, owned: bool) {
        self.prefetch.set_owned(partition, owned);
    }

    /// Prefetches announced manifests of the owned partitions until stopped.
    pub async fn prefetch(self, partitions: u16, stop: CancellationToken) {
        self.prefetch.follow(&self.store, partitions, &stop).await;
    }

    /// Fetches a manifest with its fleet and returns what it pins.
    ///
    /// # Errors
    /// When the object store does not answer.
    pub async fn fetch(&self, hash: &ManifestHash) -> Result<ManifestFetch, OwnershipEnd> {
        match self.prefetch.take(hash).await {
            Some(pinned) => Ok(ManifestFetch::Pinned(pinned)),
            None => fetch_pinned(&self.store, hash).await,
        }
    }
}
