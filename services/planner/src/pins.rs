//! What rollouts were opened with, fetched from the object store once.

use anyhow::Context as _;
use nixfleet_bus::ManifestStore;
use nixfleet_plan::PinnedSet;
use nixfleet_proto::{ManifestHash, Outcome, Verdict};
use nixfleet_trust::{fleet_hash_of, pin};

/// Pinned manifests by hash.
pub struct Pins {
    store: ManifestStore,
    set: PinnedSet,
}

impl Pins {
    /// Nothing is fetched yet.
    pub fn new(store: ManifestStore) -> Self {
        Self {
            store,
            set: PinnedSet::new(),
        }
    }

    /// What was fetched.
    pub fn set(&self) -> &PinnedSet {
        &self.set
    }

    /// Fetches what the outcomes' opened rollouts pin.
    ///
    /// # Errors
    /// When an artifact is missing, does not fit its hash, or the store does not answer.
    pub async fn fetch_opened(&mut self, outcomes: &[Outcome]) -> anyhow::Result<()> {
        for outcome in outcomes {
            let Verdict::Accepted(accepted) = &outcome.verdict else {
                continue;
            };
            if let Some(opened) = &accepted.opened {
                let opening = format!("opening {}", opened.rollout_id);
                self.fetch(&opened.manifest_hash).await.context(opening)?;
            }
        }
        Ok(())
    }

    /// Fetches what one manifest pins.
    ///
    /// # Errors
    /// As [`Pins::fetch_opened`].
    pub async fn fetch(&mut self, hash: &ManifestHash) -> anyhow::Result<()> {
        if self.set.contains_key(hash) {
            return Ok(());
        }
        let manifest = self.object(hash).await?;
        let fleet_hash = fleet_hash_of(&manifest, hash).context("reading the rollout manifest")?;
        let fleet = self.object(&fleet_hash).await?;
        let name = hash.clone();
        // Canonicalising a large fleet takes long enough to make the lease renewals wait.
        let pinned = tokio::task::spawn_blocking(move || pin(&manifest, &fleet, &name)).await?;
        let pinned = pinned.with_context(|| format!("pinning manifest {hash}"))?;
        self.set.insert(hash.clone(), pinned);
        Ok(())
    }

    async fn object(&self, hash: &ManifestHash) -> anyhow::Result<bytes::Bytes> {
        let found = self.store.get(hash).await?;
        found.with_context(|| format!("artifact {hash} is not in the object store"))
    }
}
