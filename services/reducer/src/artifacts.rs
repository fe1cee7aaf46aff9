//! What manifests pin, fetched from the object store by hash.

use anyhow::Context as _;
use bytes::Bytes;
use nixfleet_bus::ManifestStore;
use nixfleet_proto::ManifestHash;
use nixfleet_reducer::{Ended, Fetched};
use nixfleet_trust::{PinError, fleet_hash_of, pin};

/// Fetches a manifest with its fleet and reads what it pins.
///
/// # Errors
/// When the object store does not answer.
pub async fn fetch(store: &ManifestStore, hash: &ManifestHash) -> Result<Fetched, Ended> {
    let Some(manifest) = bytes(store, hash).await? else {
        return Ok(Fetched::Missing(hash.clone()));
    };
    let fleet_hash = match fleet_hash_of(&manifest, hash) {
        Ok(fleet_hash) => fleet_hash,
        Err(error) => return Ok(useless(hash, &error)),
    };
    let Some(fleet) = bytes(store, &fleet_hash).await? else {
        return Ok(Fetched::Missing(fleet_hash));
    };
    let pinning = hash.clone();
    // The fleet of a million hosts takes seconds to parse.
    let pinned = tokio::task::spawn_blocking(move || pin(&manifest, &fleet, &pinning))
        .await
        .context("pinning a manifest")
        .map_err(Ended::Failed)?;
    Ok(match pinned {
        Ok(manifest) => Fetched::Pins(manifest),
        Err(error) => useless(hash, &error),
    })
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
