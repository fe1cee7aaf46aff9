//! Reading what a manifest pins out of the object store.

use anyhow::Context as _;
use bytes::Bytes;
use nixfleet_bus::ManifestStore;
use nixfleet_proto::ManifestHash;
use nixfleet_reducer::{Ended, Fetched};
use nixfleet_trust::{PinError, UnpinnedManifest};

/// What a manifest pins, read with its fleet.
pub(super) async fn read(store: &ManifestStore, hash: &ManifestHash) -> Result<Fetched, Ended> {
    let Some(manifest) = bytes(store, hash).await? else {
        return Ok(Fetched::Missing(hash.clone()));
    };
    let name = hash.clone();
    let unpinned = match computed(move || UnpinnedManifest::read(&manifest, &name)).await? {
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
