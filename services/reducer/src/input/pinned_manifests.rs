//! Pinned content of manifests, cached by hash.

use std::collections::BTreeSet;

use anyhow::anyhow;
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::{ManifestHash, PinnedManifest};

use crate::ownership::ownership_end::OwnershipEnd;

/// Unused manifests that are kept before the cache is swept.
const UNUSED_MAX: usize = 64;

/// Result of fetching a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestFetch {
    /// The pinned content.
    Pinned(PinnedManifest),
    /// The bytes pin nothing. Every fold finds the same and rejects entries that name the manifest.
    Invalid,
    /// These bytes are not in the object store: the manifest's own, or those of its fleet.
    Missing(ManifestHash),
}

/// The pinned manifests of one partition.
#[derive(Debug, Default)]
pub struct PinnedManifests {
    pinned: PinnedSet,
    invalid: BTreeSet<ManifestHash>,
}

impl PinnedManifests {
    /// Creates an empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// All fetched manifests.
    pub fn set(&self) -> &PinnedSet {
        &self.pinned
    }

    /// True when the manifest has to be fetched before an entry that names it is folded.
    pub fn is_missing(&self, hash: &ManifestHash) -> bool {
        !self.pinned.contains_key(hash) && !self.invalid.contains(hash)
    }

    /// Adds a fetched manifest.
    ///
    /// # Errors
    /// Halts when bytes are missing: the log cannot be folded without them.
    pub fn add(&mut self, hash: ManifestHash, fetched: ManifestFetch) -> Result<(), OwnershipEnd> {
        match fetched {
            ManifestFetch::Pinned(manifest) => {
                self.pinned.insert(hash, manifest);
            }
            ManifestFetch::Invalid => {
                self.invalid.insert(hash);
            }
            ManifestFetch::Missing(missing) => {
                return Err(OwnershipEnd::Halted(anyhow!(
                    "the artifact {missing} is not in the object store: publish the release again, \
                     or put the bytes back"
                )));
            }
        }
        Ok(())
    }

    /// Drops manifests that no rollout of the state uses, once there are enough of them.
    pub fn remove_unused(&mut self, state: &PartitionState) {
        if self.pinned.len() + self.invalid.len() < state.rollouts().len() + UNUSED_MAX {
            return;
        }
        let used: BTreeSet<&ManifestHash> = state
            .rollouts()
            .values()
            .map(|rollout| &rollout.manifest_hash)
            .collect();
        self.pinned.retain(|hash, _| used.contains(hash));
        self.invalid.clear();
    }
}
