//! A release directory, as `nixfleet release` writes it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use nixfleet_trust::{ReleaseBundle, Signed, release_bundle};
use tokio::io::AsyncReadExt as _;

use super::error::SourceError;
use super::unverified_manifests::{bundle_of, rollouts_of};

/// A directory that is read at every poll.
pub struct Directory {
    path: PathBuf,
    max_bytes: usize,
}

impl Directory {
    /// Creates a source; the directory need not exist yet.
    pub fn new(path: PathBuf, max_bytes: usize) -> Self {
        Self { path, max_bytes }
    }

    /// Reads the release.
    ///
    /// # Errors
    /// [`SourceError`]. A directory that is being written may give a mixture, which verification
    /// refuses; the next poll reads the complete release.
    pub async fn fetch(&self) -> Result<ReleaseBundle, SourceError> {
        let fleet = self.signed(release_bundle::FLEET_FILE).await?;
        let fleet = fleet.ok_or(SourceError::Nothing)?;
        let mut rollouts = BTreeMap::new();
        for (channel, rollout_id) in rollouts_of(&fleet.bytes) {
            if let Some(signed) = self
                .signed(&release_bundle::rollout_file(&rollout_id))
                .await?
            {
                rollouts.insert(channel, signed);
            }
        }
        Ok(bundle_of(fleet, rollouts))
    }

    /// Reads an artifact and its signature; a missing signature is empty, which no key accepts.
    async fn signed(&self, artifact: &str) -> Result<Option<Signed>, SourceError> {
        let Some(bytes) = self.read(artifact).await? else {
            return Ok(None);
        };
        let signature = self.read(&release_bundle::signature_file(artifact)).await?;
        Ok(Some(Signed {
            bytes,
            signature: signature.unwrap_or_default(),
        }))
    }

    async fn read(&self, artifact: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let file = match tokio::fs::File::open(self.path.join(artifact)).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SourceError::unavailable(artifact, error)),
        };
        let mut bytes = Vec::new();
        let limit = self.max_bytes as u64 + 1;
        let read = file.take(limit).read_to_end(&mut bytes).await;
        read.map_err(|error| SourceError::unavailable(artifact, error))?;
        if bytes.len() > self.max_bytes {
            return Err(SourceError::TooLarge {
                artifact: artifact.to_owned(),
                max: self.max_bytes,
            });
        }
        Ok(Some(bytes))
    }
}
