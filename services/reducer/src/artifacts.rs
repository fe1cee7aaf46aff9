//! What manifests pin, fetched from the object store by hash.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use nixfleet_bus::ManifestStore;
use nixfleet_proto::ManifestHash;
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{Ended, Fetched};
use nixfleet_service::CancellationToken;
use nixfleet_trust::{PinError, Unpinned};

mod ahead;
mod queue;

use ahead::Ahead;

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

async fn read(store: &ManifestStore, hash: &ManifestHash) -> Result<Fetched, Ended> {
    let Some(manifest) = bytes(store, hash).await? else {
        return Ok(Fetched::Missing(hash.clone()));
    };
    let name = hash.clone();
    let unpinned = match computed(move || Unpinned::read(&manifest, &name)).await? {
        Ok(unpinned) => unpinned,
        Err(error) => return Ok(useless(hash, &error)),
    };
    let Some(fleet) = bytes(store, unpinned.fleet_hash()).await? else {
        return Ok(Fetched::Missing(unpinned.fleet_hash().clone()));
    };
    Ok(match computed(move || unpinned.pin(&fleet)).await? {
        Ok(manifest) => Fetched::Pins(manifest),
        Err(error) => useless(hash, &error),
    })
}

/// The artifacts of a million hosts take seconds to parse.
async fn computed<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Ended> {
    let done = tokio::task::spawn_blocking(work).await;
    done.context("pinning a manifest").map_err(Ended::Failed)
}

async fn bytes(store: &ManifestStore, hash: &ManifestHash) -> Result<Option<Bytes>, Ended> {
    store
        .get(hash)
        .await
        .with_context(|| format!("fetching the artifact {hash}"))
        .map_err(Ended::Failed)
}

/// A fault of the bytes themselves is the same on every fold, so it is no failure here.
fn useless(hash: &ManifestHash, error: &PinError) -> Fetched {
    tracing::error!(%hash, %error, "an artifact pins nothing");
    Fetched::Useless
}
