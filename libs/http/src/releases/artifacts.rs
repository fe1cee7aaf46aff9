//! A verified release with its bytes.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use nixfleet_proto::fleet::Fleet;
use nixfleet_proto::{ManifestHash, RolloutId};
use nixfleet_trust::{AcceptedRelease, Newest, Release, ReleaseBundle, Signed};

use super::named_hosts::NamedHosts;

/// An artifact as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Hash of its canonical form.
    pub hash: ManifestHash,
    /// The bytes.
    pub bytes: Bytes,
    /// The raw detached signature.
    pub signature: Bytes,
}

impl Artifact {
    pub(super) fn new(hash: &ManifestHash, signed: Signed) -> Self {
        Self {
            hash: hash.clone(),
            bytes: signed.bytes.into(),
            signature: signed.signature.into(),
        }
    }
}

/// A verified release and the bytes it was verified from.
#[derive(Debug)]
pub struct Artifacts {
    /// What was verified.
    pub release: Release,
    /// The fleet as received.
    pub fleet: Artifact,
    /// The rollout manifests as received.
    pub rollouts: BTreeMap<RolloutId, Artifact>,
    named_hosts: OnceLock<NamedHosts>,
}

impl Artifacts {
    /// Of a release and the bundle that it was verified from.
    pub fn new(release: Release, bundle: ReleaseBundle) -> Self {
        let fleet = Artifact::new(release.fleet().hash(), bundle.fleet);
        let rollouts = bundle
            .rollouts
            .into_iter()
            .filter_map(|(channel, signed)| {
                let manifest = release.rollouts().get(&channel)?;
                let artifact = Artifact::new(manifest.hash(), signed);
                Some((manifest.payload().rollout_id(), artifact))
            })
            .collect();
        Self {
            release,
            fleet,
            rollouts,
            named_hosts: OnceLock::new(),
        }
    }

    /// The hosts by name. The first call takes long for a large fleet.
    pub fn named_hosts(&self) -> &NamedHosts {
        self.named_hosts
            .get_or_init(|| NamedHosts::of(self.fleet()))
    }

    /// What the fleet says.
    pub fn fleet(&self) -> &Fleet {
        self.release.fleet().payload()
    }

    /// All artifacts, the fleet first.
    pub fn all(&self) -> impl Iterator<Item = &Artifact> {
        std::iter::once(&self.fleet).chain(self.rollouts.values())
    }
}

/// An announced release that was verified, whatever its age.
#[derive(Debug)]
pub struct Announced {
    /// Sequence of its announcement.
    pub seq: u64,
    /// What was announced.
    pub artifacts: Arc<Artifacts>,
}

/// The current release: verified, and newer than every release before it.
#[derive(Debug)]
pub struct Current {
    /// Sequence of its announcement.
    pub seq: u64,
    /// What was announced.
    pub artifacts: Arc<Artifacts>,
    newest: Newest,
}

impl Current {
    pub(super) fn new(announced: Announced, newest: Newest) -> Self {
        let Announced { seq, artifacts } = announced;
        Self {
            seq,
            artifacts,
            newest,
        }
    }

    /// The form for comparison with later releases.
    pub fn accepted(&self) -> &AcceptedRelease {
        self.newest.accepted()
    }
}

impl Deref for Current {
    type Target = Artifacts;

    fn deref(&self) -> &Artifacts {
        &self.artifacts
    }
}
