//! Fetching what opened rollouts pin.

use anyhow::{Context as _, anyhow};
use nixfleet_bus::{Bus, ManifestStore};
use nixfleet_proto::{ManifestHash, PinnedManifest, PinnedSet};
use nixfleet_trust::UnpinnedManifest;

/// Adds what these manifests pin, unless it is there already.
///
/// # Errors
/// When bytes are missing or are not what their hash says; somebody has to put them there.
pub async fn fetch(
    bus: &Bus,
    wanted: impl Iterator<Item = &ManifestHash>,
    pinned: &mut PinnedSet,
) -> anyhow::Result<()> {
    let store = bus.manifests();
    for hash in wanted {
        if !pinned.contains_key(hash) {
            let found = fetch_one(&store, hash)
                .await
                .with_context(|| format!("expanding the hosts of manifest {hash}"))?;
            pinned.insert(hash.clone(), found);
        }
    }
    Ok(())
}

async fn fetch_one(store: &ManifestStore, hash: &ManifestHash) -> anyhow::Result<PinnedManifest> {
    let absent = |what, hash| anyhow!("the {what} {hash} is not in the object store; put it back");
    let manifest = store.get(hash).await?;
    let manifest = manifest.ok_or_else(|| absent("manifest", hash.clone()))?;
    let hash = hash.clone();
    // Parsing and hashing a large fleet takes seconds of computing.
    let unpinned = tokio::task::spawn_blocking(move || UnpinnedManifest::read(&manifest, &hash));
    let unpinned = unpinned.await.context("reading the manifest")??;
    let fleet = store.get(unpinned.fleet_hash()).await?;
    let fleet = fleet.ok_or_else(|| absent("fleet", unpinned.fleet_hash().clone()))?;
    let pinned = tokio::task::spawn_blocking(move || unpinned.pin(&fleet));
    Ok(pinned.await.context("pinning")??)
}
