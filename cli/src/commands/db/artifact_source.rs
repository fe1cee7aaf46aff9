//! Artifacts of rollouts: from the archive, or from the files of the releases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use nixfleet_proto::{CheckpointRef, ManifestHash, PinnedManifest, PinnedSet};
use nixfleet_store::Store;
use nixfleet_trust::{UnpinnedManifest, canonical_hash};

use super::database_options::Database;
use crate::atomic_files;
use crate::command_error::{CommandError, InputContext};

/// Artifacts by hash.
pub struct Artifacts<'a> {
    store: &'a Store,
    files: BTreeMap<ManifestHash, PathBuf>,
    pinned: PinnedSet,
}

impl<'a> Artifacts<'a> {
    /// A source of the archived artifacts and of the files below a directory.
    ///
    /// # Errors
    /// Exit code 2 when the directory cannot be read.
    pub fn new(store: &'a Store, directory: Option<&Path>) -> Result<Self, CommandError> {
        let mut found = BTreeMap::new();
        if let Some(directory) = directory {
            list(directory, &mut found)
                .or_input_error(|| format!("cannot read {}", directory.display()))?;
        }
        Ok(Self {
            store,
            files: found,
            pinned: PinnedSet::new(),
        })
    }

    /// The pinned manifest of a hash; `None` when its artifact is missing or has no pins.
    pub async fn find(
        &mut self,
        hash: &ManifestHash,
    ) -> Result<Option<PinnedManifest>, CommandError> {
        if let Some(pinned) = self.pinned.get(hash) {
            return Ok(Some(pinned.clone()));
        }
        let Some(manifest) = self.bytes(hash).await? else {
            return Ok(None);
        };
        let Ok(unpinned) = UnpinnedManifest::read(&manifest, hash) else {
            return Ok(None);
        };
        let Some(fleet) = self.bytes(unpinned.fleet_hash()).await? else {
            return Ok(None);
        };
        let Ok(pinned) = unpinned.pin(&fleet) else {
            return Ok(None);
        };
        self.pinned.insert(hash.clone(), pinned.clone());
        Ok(Some(pinned))
    }

    /// The pinned manifest of an opened rollout, which is required.
    ///
    /// # Errors
    /// Exit code 1 when it is nowhere.
    pub async fn get(&mut self, hash: &ManifestHash) -> Result<PinnedManifest, CommandError> {
        let found = self.find(hash).await?;
        found.ok_or_else(|| {
            CommandError::refused(anyhow!(
                "the artifact {hash} or the fleet it names is not in the archive: name the \
                 directory of its release with --manifests"
            ))
        })
    }

    /// The bytes of a checkpoint, when they are archived.
    pub async fn checkpoint(&self, named: &CheckpointRef) -> Result<Option<Vec<u8>>, CommandError> {
        let hash = ManifestHash::from(named.hash.as_str());
        self.store.artifact(&hash).await.or_database()
    }

    async fn bytes(&self, hash: &ManifestHash) -> Result<Option<Vec<u8>>, CommandError> {
        match self.files.get(hash) {
            Some(path) => atomic_files::read(path).map(Some),
            None => self.store.artifact(hash).await.or_database(),
        }
    }
}

/// Every JSON file below a directory, by the hash of its canonical form.
fn list(directory: &Path, found: &mut BTreeMap<ManifestHash, PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "json")
            && let Ok(hash) = canonical_hash(&std::fs::read(&path)?)
        {
            found.insert(hash, path);
        }
    }
    Ok(())
}
