//! Fetches the pinned content of opened rollouts.

use anyhow::{Context as _, anyhow};
use nixfleet_bus::{Bus, ManifestStore};
use nixfleet_proto::{ManifestHash, PinnedManifest, PinnedSet};
use nixfleet_trust::UnpinnedManifest;

/// Adds the pinned content of these manifests, unless it is there.
///
/// # Errors
/// When an artifact is missing or does not match its hash; an operator has to restore it.
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
                .with_context(|| format!("fetching manifest {hash}"))?;
            pinned.insert(hash.clone(), found);
        }
    }
    Ok(())
}

async fn fetch_one(store: &ManifestStore, hash: &ManifestHash) -> anyhow::Result<PinnedManifest> {
    let absent = |what, hash| {
        anyhow!("the {what} {hash} is not in the object store; publish the release again")
    };
    let manifest = store.get(hash).await?;
    let manifest = manifest.ok_or_else(|| absent("manifest", hash.clone()))?;
    let hash = hash.clone();
    // Parsing and hashing a large fleet takes seconds of CPU time.
    let unpinned = tokio::task::spawn_blocking(move || UnpinnedManifest::read(&manifest, &hash));
    let unpinned = unpinned.await.context("reading the manifest")??;
    let fleet = store.get(unpinned.fleet_hash()).await?;
    let fleet = fleet.ok_or_else(|| absent("fleet", unpinned.fleet_hash().clone()))?;
    let pinned = tokio::task::spawn_blocking(move || unpinned.pin(&fleet));
    Ok(pinned.await.context("pinning")??)
}
