//! What manifests pin, as far as it was fetched.

use std::collections::BTreeSet;

use anyhow::anyhow;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::{ManifestHash, PinnedManifest};

use crate::ended::Ended;

/// Pinned manifests beyond those in use that are kept before the set is swept.
const UNUSED_MAX: usize = 64;

/// What came of fetching a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// It pins this.
    Pins(PinnedManifest),
    /// Its bytes are there and pin nothing: the same on every fold, which refuses what names it.
    Useless,
    /// These bytes are not in the object store: the manifest's own, or those of its fleet.
    Missing(ManifestHash),
}

/// The pinned manifests of one partition.
#[derive(Debug, Default)]
pub struct Pins {
    pinned: PinnedSet,
    useless: BTreeSet<ManifestHash>,
}

impl Pins {
    /// Nothing fetched yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is pinned so far.
    pub fn set(&self) -> &PinnedSet {
        &self.pinned
    }

    /// True when the manifest has to be fetched before anything that names it is folded.
    pub fn lacks(&self, hash: &ManifestHash) -> bool {
        !self.pinned.contains_key(hash) && !self.useless.contains(hash)
    }

    /// Takes what came of fetching a manifest.
    ///
    /// # Errors
    /// Halts when bytes are missing: without them the log cannot be folded.
    pub fn give(&mut self, hash: ManifestHash, fetched: Fetched) -> Result<(), Ended> {
        match fetched {
            Fetched::Pins(manifest) => {
                self.pinned.insert(hash, manifest);
            }
            Fetched::Useless => {
                self.useless.insert(hash);
            }
            Fetched::Missing(missing) => {
                return Err(Ended::Halted(anyhow!(
                    "the artifact {missing} is not in the object store: publish the release again, \
                     or put the bytes back"
                )));
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
}
