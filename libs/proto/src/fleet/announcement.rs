//! Announcements of releases: hashes and signatures of the stored artifacts.
//!
//! Source: docs/wire-protocol.md, subjects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{ChannelName, ManifestHash, RolloutId};

/// The announcement of one accepted release on `fleet.manifest.fleet`.
///
/// Bytes are in the object store under their hashes; signatures are small and travel here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseAnnouncement {
    /// Layout version.
    pub v: u32,
    /// The fleet artifact.
    pub fleet: ArtifactRef,
    /// One rollout manifest per channel with hosts, by channel.
    pub rollouts: BTreeMap<ChannelName, RolloutAnnouncement>,
}

impl ReleaseAnnouncement {
    /// Every announced artifact: the fleet, then the rollout manifests by channel.
    pub fn artifacts(&self) -> impl Iterator<Item = &ArtifactRef> {
        let rollouts = self.rollouts.values().map(|rollout| &rollout.artifact);
        std::iter::once(&self.fleet).chain(rollouts)
    }
}

/// The announcement of one rollout manifest on `fleet.manifest.rollout.<channel>.<ref>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutAnnouncement {
    /// Layout version.
    pub v: u32,
    /// Its identity.
    pub rollout_id: RolloutId,
    /// The artifact.
    pub artifact: ArtifactRef,
}

/// Hash and signature of a stored artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactRef {
    /// SHA-256 of the canonical bytes; the object's name.
    pub hash: ManifestHash,
    /// Detached signature, standard base64.
    pub signature: String,
    /// Time of signing.
    pub signed_at: Timestamp,
}
