//! What manifests pin, fetched from the object store by hash.

use std::collections::BTreeSet;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use nixfleet_bus::ManifestStore;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::{ManifestHash, PinnedManifest};
use nixfleet_trust::pin;

use crate::ended::Ended;

/// Pinned manifests beyond those in use that are kept before the set is swept.
const UNUSED_MAX: usize = 64;

/// The pinned manifests of one partition.
pub struct Manifests {
    store: ManifestStore,
    pinned: PinnedSet,
    /// Hashes whose bytes are there and pin nothing: the fold refuses what names them.
    useless: BTreeSet<ManifestHash>,
}

impl Manifests {
    /// Nothing pinned yet.
    pub fn new(store: ManifestStore) -> Self {
        Self {
            store,
            pinned: PinnedSet::new(),
            useless: BTreeSet::new(),
        }
    }

    /// What is pinned so far.
    pub fn pinned(&self) -> &PinnedSet {
        &self.pinned
    }

    /// Makes sure that what this manifest pins is at hand.
    ///
    /// # Errors
    /// Halts when bytes are missing: without them the log cannot be folded.
    pub async fn ensure(&mut self, hash: &ManifestHash) -> Result<(), Ended> {
        if self.pinned.contains_key(hash) || self.useless.contains(hash) {
            return Ok(());
        }
        match self.fetch(hash).await? {
            Some(pinned) => {
                self.pinned.insert(hash.clone(), pinned);
            }
            None => {
                self.useless.insert(hash.clone());
            }
        }
        Ok(())
    }

    /// Forgets what no rollout of the state uses, once there is enough of it.
    pub fn sweep(&mut self, state: &PartitionState) {
        if self.pinned.len() + self.useless.len() < state.rollouts().len() + UNUSED_MAX {
            return;
        }
        let used: BTreeSet<&ManifestHash> = state
            .rollouts()
            .values()
            .map(|rollout| &rollout.manifest_hash)
            .collect();
        self.pinned.retain(|hash, _| used.contains(hash));
        self.useless.clear();
    }

    async fn fetch(&self, hash: &ManifestHash) -> Result<Option<PinnedManifest>, Ended> {
        let manifest = self.bytes(hash).await?;
        let fleet_hash = match pin_fault(hash, nixfleet_trust::fleet_hash_of(&manifest, hash)) {
            Some(fleet_hash) => fleet_hash,
            None => return Ok(None),
        };
        let fleet = self.bytes(&fleet_hash).await?;
        let (pinning, named) = (hash.clone(), hash.clone());
        // The fleet of a million hosts takes seconds to parse.
        let pinned = tokio::task::spawn_blocking(move || pin(&manifest, &fleet, &pinning))
            .await
            .context("pinning a manifest")
            .map_err(Ended::Failed)?;
        Ok(pin_fault(&named, pinned))
    }

    async fn bytes(&self, hash: &ManifestHash) -> Result<Bytes, Ended> {
        let found = self
            .store
            .get(hash)
            .await
            .with_context(|| format!("fetching the artifact {hash}"))
            .map_err(Ended::Failed)?;
        found.ok_or_else(|| {
            Ended::Halted(anyhow!(
                "the artifact {hash} is not in the object store: publish the release again, or put \
                 the bytes back"
            ))
        })
    }
}

/// A fault of the bytes themselves is the same on every fold, so it is no failure here.
fn pin_fault<T>(hash: &ManifestHash, pinned: Result<T, nixfleet_trust::PinError>) -> Option<T> {
    match pinned {
        Ok(pinned) => Some(pinned),
        Err(error) => {
            tracing::error!(%hash, %error, "an artifact pins nothing");
            None
        }
    }
}
