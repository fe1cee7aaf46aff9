//! Fetching and verifying the artifacts of a rollout.

use std::sync::Arc;

use nixfleet_proto::RolloutId;
use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_trust::{Verified, VerifyError};
use tokio::sync::Semaphore;

use super::client::{Client, ClientError, SignedBytes};
use crate::artifact_verifier::Verifier;
use crate::core::ReleaseFault;
use crate::release_check::SignedRelease;

/// Fetches and verifies artifacts for all agents of a process.
///
/// Cache of signatures. A detached signature verified under the active keys identifies the signed bytes:
/// only the release key can sign others. So an agent fetches the signature first, and the artifact only if
/// this process has not verified one with that signature.
#[derive(Debug)]
pub struct ReleaseFetcher {
    verifier: Arc<Verifier>,
    /// Artifacts being read and verified at the same time. Bounds memory, and makes all but the
    /// first few agents of a wave find the work done.
    downloads: Semaphore,
}

impl ReleaseFetcher {
    /// A fetcher that reads and verifies at most `downloads_max` artifacts at a time.
    pub fn new(verifier: Verifier, downloads_max: usize) -> Self {
        Self {
            verifier: Arc::new(verifier),
            downloads: Semaphore::new(downloads_max),
        }
    }

    /// Fetches and verifies what a rollout consists of.
    ///
    /// # Errors
    /// When an artifact cannot be fetched, or does not verify.
    pub async fn fetch_release(
        &self,
        client: &Client,
        rollout_id: &RolloutId,
    ) -> Result<SignedRelease, ReleaseFault> {
        let manifest = self.manifest(client, rollout_id).await?;
        let fleet = self.fleet(client, &manifest).await?;
        Ok(SignedRelease { manifest, fleet })
    }

    async fn manifest(
        &self,
        client: &Client,
        rollout_id: &RolloutId,
    ) -> Result<Arc<Verified<RolloutManifest>>, ReleaseFault> {
        let signature = client.rollout_signature(rollout_id).await;
        let signature = signature.map_err(fetching)?;
        if let Some(known) = self
            .verifier
            .cached_manifest(&signature, chrono::Utc::now())
        {
            return Ok(known);
        }
        let _permit = self.downloads.acquire().await.map_err(|_| stopping())?;
        if let Some(known) = self
            .verifier
            .cached_manifest(&signature, chrono::Utc::now())
        {
            return Ok(known);
        }
        let bytes = client.rollout_manifest(rollout_id).await;
        let bytes = bytes.map_err(fetching)?;
        let verifier = Arc::clone(&self.verifier);
        verify(move || verifier.manifest(&bytes, &signature, chrono::Utc::now())).await
    }

    async fn fleet(
        &self,
        client: &Client,
        manifest: &Verified<RolloutManifest>,
    ) -> Result<Arc<Verified<Fleet>>, ReleaseFault> {
        let hash = &manifest.payload().fleet_resolved_hash;
        if let Some(known) = self.verifier.cached_fleet(hash, chrono::Utc::now()) {
            return Ok(known);
        }
        let _permit = self.downloads.acquire().await.map_err(|_| stopping())?;
        if let Some(known) = self.verifier.cached_fleet(hash, chrono::Utc::now()) {
            return Ok(known);
        }
        let SignedBytes { bytes, signature } = client.fleet().await.map_err(fetching)?;
        let verifier = Arc::clone(&self.verifier);
        verify(move || verifier.fleet(&bytes, &signature, chrono::Utc::now())).await
    }
}

/// Canonical form and signature of a large fleet take long enough to hold up other agents.
async fn verify<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VerifyError> + Send + 'static,
) -> Result<T, ReleaseFault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| stopping())?
        .map_err(|error| ReleaseFault {
            reason: kebab(error.name()),
            message: chain(&error),
            retryable: false,
        })
}

fn stopping() -> ReleaseFault {
    ReleaseFault {
        reason: "stopping".to_owned(),
        message: "the process stops".to_owned(),
        retryable: true,
    }
}

fn fetching(error: ClientError) -> ReleaseFault {
    ReleaseFault {
        reason: "not-fetched".to_owned(),
        retryable: error.is_retryable(),
        message: chain(&error),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// `BadSignature` as `bad-signature`.
fn kebab(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (at, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && at > 0 {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_kebab_case() {
        assert_eq!(kebab("BadSignature"), "bad-signature");
        assert_eq!(kebab("Stale"), "stale");
    }
}
