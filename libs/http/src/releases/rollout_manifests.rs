//! Rollout manifests of the current release and of older ones.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nixfleet_proto::RolloutId;
use nixfleet_proto::fleet::ArtifactRef;
use nixfleet_trust::{Freshness, Signed, verify_manifest};

use super::artifacts::RolloutArtifact;
use super::{ANNOUNCED_MAX, OLDER_MAX, Releases};
use crate::clock::now;
use crate::problem::ApiError;

impl Releases {
    /// Remembers where a rollout manifest is.
    pub fn remember(&self, rollout_id: RolloutId, artifact: ArtifactRef) {
        let mut announced = self
            .announced
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if announced.len() >= ANNOUNCED_MAX {
            announced.pop_first();
        }
        announced.insert(rollout_id, artifact);
    }

    /// A rollout manifest, of the current release or an older one.
    ///
    /// # Errors
    /// 503 before the first release is known or when the object store is away, 404 when nobody
    /// announced the rollout or its manifest does not verify here.
    pub async fn rollout(&self, rollout_id: &RolloutId) -> Result<RolloutArtifact, ApiError> {
        let current = self.current()?;
        if let Some(artifact) = current.rollouts.get(rollout_id) {
            return Ok(artifact.clone());
        }
        if let Some(artifact) = get(&self.older, rollout_id) {
            return Ok(artifact);
        }
        let unknown = || unknown_rollout(rollout_id);
        let unavailable = |error: anyhow::Error| {
            let error = format!("{error:#}");
            ApiError::unavailable("artifacts-unavailable", error, 5)
        };
        let reference = self.reference(rollout_id).await.map_err(unavailable)?;
        let reference = reference.ok_or_else(unknown)?;
        let loaded = self.load_rollout(rollout_id, &reference).await;
        let artifact = loaded.map_err(unavailable)?.ok_or_else(unknown)?;
        let mut held = self.older.write().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= OLDER_MAX {
            held.pop_first();
        }
        held.insert(rollout_id.clone(), artifact.clone());
        Ok(artifact)
    }

    /// Where a rollout manifest is. A dispatch may be faster than its announcement: what the follower
    /// has not seen yet is asked for.
    async fn reference(&self, rollout_id: &RolloutId) -> anyhow::Result<Option<ArtifactRef>> {
        if let Some(reference) = get(&self.announced, rollout_id) {
            return Ok(Some(reference));
        }
        let announced = self.store.rollout(rollout_id).await?;
        Ok(announced.map(|announced| announced.artifact))
    }

    async fn load_rollout(
        &self,
        rollout_id: &RolloutId,
        reference: &ArtifactRef,
    ) -> anyhow::Result<Option<RolloutArtifact>> {
        let Some(bytes) = self.store.get(&reference.hash).await? else {
            return Ok(None);
        };
        let Ok(signature) = STANDARD.decode(&reference.signature) else {
            return Ok(None);
        };
        let trust = self.trust().await?;
        let expected = rollout_id.clone();
        let verified = tokio::task::spawn_blocking(move || {
            let signed = Signed {
                bytes: bytes.to_vec(),
                signature,
            };
            let now = now();
            let freshness = Freshness {
                now,
                window: Duration::MAX,
            };
            verify_manifest(&signed, &trust.release_keys(now), freshness, &expected)
                .map(|manifest| RolloutArtifact::new(&manifest, signed))
        });
        match verified.await.context("verifying a rollout manifest")? {
            Ok(artifact) => Ok(Some(artifact)),
            Err(error) => {
                tracing::warn!(rollout = %rollout_id, %error, "a manifest does not verify");
                Ok(None)
            }
        }
    }
}

/// The answer about a rollout of which nothing is known, or nothing that concerns the client.
pub fn unknown_rollout(rollout_id: &RolloutId) -> ApiError {
    let message = format!("no manifest of {rollout_id} is known that concerns this client");
    ApiError::refused(http::StatusCode::NOT_FOUND, "unknown-rollout", message)
}

fn get<T: Clone>(map: &RwLock<BTreeMap<RolloutId, T>>, rollout_id: &RolloutId) -> Option<T> {
    let map = map.read().unwrap_or_else(PoisonError::into_inner);
    map.get(rollout_id).cloned()
}
