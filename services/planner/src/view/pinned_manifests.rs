//! Pinned content of open rollouts, fetched from the object store once.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use nixfleet_bus::ManifestStore;
use nixfleet_plan::{FleetView, PinnedSet, Release};
use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_proto::{Decision, ManifestHash, Outcome, PinnedManifest};
use nixfleet_trust::{PinError, UnpinnedManifest, pin_verified};
use tokio::task::JoinHandle;

/// Cache of pinned content by manifest hash.
pub struct PinnedManifests {
    store: ManifestStore,
    set: PinnedSet,
    /// Content of rollouts that the current release is about to open.
    prefetched: BTreeMap<ManifestHash, JoinHandle<Result<PinnedManifest, PinError>>>,
}

impl PinnedManifests {
    pub fn new(store: ManifestStore) -> Self {
        Self {
            store,
            set: PinnedSet::new(),
            prefetched: BTreeMap::new(),
        }
    }

    /// Pins manifests that a release will open, except those of rollouts open in `view`.
    pub fn prepare(&mut self, release: &Release, view: &FleetView) {
        let manifests = release.manifests().values();
        let wanted = manifests.filter(|of_channel| {
            let rollout_id = of_channel.manifest.rollout_id();
            view.rollout(&rollout_id).is_none() && !self.set.contains_key(&of_channel.hash)
        });
        let prefetched = wanted.map(|of_channel| {
            let (manifest, fleet) = (
                Arc::clone(&of_channel.manifest),
                Arc::clone(release.fleet()),
            );
            let pinning = tokio::task::spawn_blocking(move || pin_verified(&manifest, &fleet));
            (of_channel.hash.clone(), pinning)
        });
        // Manifests of an earlier release are read if its rollouts are opened after all.
        self.prefetched = prefetched.collect();
    }

    /// All fetched content.
    pub fn set(&self) -> &PinnedSet {
        &self.set
    }

    /// Fetches the content of opened rollouts, unless the current release has verified it.
    ///
    /// # Errors
    /// When an artifact is missing, does not match its hash, or the store does not answer.
    pub async fn fetch_opened(
        &mut self,
        outcomes: &[Outcome],
        release: Option<&Release>,
    ) -> anyhow::Result<()> {
        for outcome in outcomes {
            let Decision::Accepted(accepted) = &outcome.decision else {
                continue;
            };
            if let Some(opened) = &accepted.opened {
                let opening = format!("opening {}", opened.rollout_id);
                let fetched = self.fetch(&opened.manifest_hash, release).await;
                fetched.context(opening)?;
            }
        }
        Ok(())
    }

    /// Fetches the pinned content of one manifest.
    pub async fn fetch(
        &mut self,
        hash: &ManifestHash,
        release: Option<&Release>,
    ) -> anyhow::Result<()> {
        if self.set.contains_key(hash) {
            return Ok(());
        }
        let verified = release.and_then(|release| verified(release, hash));
        let pinned = match (self.prefetched.remove(hash), verified) {
            (Some(pinning), _) => pinning.await?,
            (None, Some((manifest, fleet))) => {
                tokio::task::spawn_blocking(move || pin_verified(&manifest, &fleet)).await?
            }
            (None, None) => self.read(hash).await?,
        };
        let pinned = pinned.with_context(|| format!("pinning manifest {hash}"))?;
        self.set.insert(hash.clone(), pinned);
        Ok(())
    }

    async fn read(&self, hash: &ManifestHash) -> anyhow::Result<Result<PinnedManifest, PinError>> {
        let manifest = self.object(hash).await?;
        let name = hash.clone();
        // Parsing and hashing a large fleet takes long enough to delay lease renewals.
        let unpinned =
            tokio::task::spawn_blocking(move || UnpinnedManifest::read(&manifest, &name));
        let unpinned = match unpinned.await? {
            Ok(unpinned) => unpinned,
            Err(error) => return Ok(Err(error)),
        };
        let fleet = self.object(unpinned.fleet_hash()).await?;
        Ok(tokio::task::spawn_blocking(move || unpinned.pin(&fleet)).await?)
    }

    async fn object(&self, hash: &ManifestHash) -> anyhow::Result<bytes::Bytes> {
        let found = self.store.get(hash).await?;
        found.with_context(|| format!("artifact {hash} is not in the object store"))
    }
}

/// The manifest of this release with its fleet.
fn verified(release: &Release, hash: &ManifestHash) -> Option<(Arc<RolloutManifest>, Arc<Fleet>)> {
    let mut manifests = release.manifests().values();
    let manifest = manifests.find(|manifest| manifest.hash == *hash)?;
    Some((Arc::clone(&manifest.manifest), Arc::clone(release.fleet())))
}
