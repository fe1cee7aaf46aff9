//! Copies the artifacts that announcements name.

use std::collections::BTreeSet;

use nixfleet_bus::{Bus, ManifestError, Message};
use nixfleet_proto::ManifestHash;
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_store::{ArchiveError, Store};

/// Copies artifacts from the object store into the archive, each once.
pub struct Artifacts {
    bus: Bus,
    store: Store,
    /// Artifacts that this process knows to be archived.
    known: BTreeSet<ManifestHash>,
}

/// Why an artifact was not archived.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The object store does not answer, or the object cannot be used.
    #[error(transparent)]
    Bus(#[from] ManifestError),
    /// The database does not answer or refuses the artifact.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl Artifacts {
    pub fn new(bus: Bus, store: Store) -> Self {
        Self {
            bus,
            store,
            known: BTreeSet::new(),
        }
    }

    /// Archives the artifacts of these announcements. A missing artifact is reported and skipped:
    /// it may have been deleted since, and the announcement is still worth keeping.
    ///
    /// # Errors
    /// When a server does not answer; a retry is safe.
    pub async fn archive(&mut self, messages: &[Message]) -> Result<(), ArtifactError> {
        for hash in messages.iter().flat_map(named) {
            if !self.known.contains(&hash) {
                self.archive_one(hash).await?;
            }
        }
        Ok(())
    }

    async fn archive_one(&mut self, hash: ManifestHash) -> Result<(), ArtifactError> {
        let archived = self.store.is_artifact_archived(&hash).await;
        if !archived.map_err(ArchiveError::Db)? {
            let found = match self.bus.manifests().get(&hash).await {
                Err(error @ (ManifestError::TooLarge { .. } | ManifestError::Damaged { .. })) => {
                    tracing::warn!(%error, "an announced artifact cannot be archived");
                    None
                }
                found => found?,
            };
            let Some(bytes) = found else {
                metrics::counter!("nixfleet_archive_artifacts_missing_total").increment(1);
                tracing::warn!(%hash, "an announced artifact is not in the object store; publish \
                    its release again, so that the archive can be replayed");
                return Ok(());
            };
            self.store.archive_artifact(&hash, &bytes).await?;
        }
        self.known.insert(hash);
        Ok(())
    }
}

/// The artifacts that a message announces; none unless it is a release.
fn named(message: &Message) -> Vec<ManifestHash> {
    let Ok(release) = serde_json::from_slice::<ReleaseAnnouncement>(&message.payload) else {
        return Vec::new();
    };
    let rollouts = release.rollouts.into_values();
    let rollouts = rollouts.map(|rollout| rollout.artifact.hash);
    std::iter::once(release.fleet.hash)
        .chain(rollouts)
        .collect()
}
