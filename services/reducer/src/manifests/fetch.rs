//! Fetches the content that a manifest pins from the object store.

use anyhow::Context as _;
use bytes::Bytes;
use nixfleet_bus::ManifestStore;
use nixfleet_proto::ManifestHash;
use nixfleet_reducer::{ManifestFetch, OwnershipEnd};
use nixfleet_trust::{PinError, UnpinnedManifest};

/// Reads a manifest with its fleet.
pub(super) async fn fetch_pinned(
    store: &ManifestStore,
    hash: &ManifestHash,
) -> Result<ManifestFetch, OwnershipEnd> {
    let Some(manifest) = bytes(store, hash).await? else {
        return Ok(ManifestFetch::Missing(hash.clone()));
    };
    let name = hash.clone();
    let unpinned = match computed(move || UnpinnedManifest::read(&manifest, &name)).await? {
        Ok(unpinned) => unpinned,
        Err(error) => return Ok(invalid(hash, &error)),
    };
    let Some(fleet) = bytes(store, unpinned.fleet_hash()).await? else {
        return Ok(ManifestFetch::Missing(unpinned.fleet_hash().clone()));
    };
    Ok(match computed(move || unpinned.pin(&fleet)).await? {
        Ok(manifest) => ManifestFetch::Pinned(manifest),
        Err(error) => invalid(hash, &error),
    })
}

/// Runs work on a blocking thread: the artifacts of a million hosts take seconds to parse.
async fn computed<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OwnershipEnd> {
    let done = tokio::task::spawn_blocking(work).await;
    done.context("pinning a manifest")
        .map_err(OwnershipEnd::Failed)
}

async fn bytes(store: &ManifestStore, hash: &ManifestHash) -> Result<Option<Bytes>, OwnershipEnd> {
    store
        .get(hash)
        .await
        .with_context(|| format!("fetching the artifact {hash}"))
        .map_err(OwnershipEnd::Failed)
}

/// Reports bytes that pin nothing. Every fold finds the same, so the ownership continues.
fn invalid(hash: &ManifestHash, error: &PinError) -> ManifestFetch {
    tracing::error!(%hash, %error, "an artifact cannot be used and pins nothing");
    ManifestFetch::Invalid
}
