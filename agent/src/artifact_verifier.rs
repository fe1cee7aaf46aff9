//! Signatures of artifacts against the trust file, with a memory for what was verified.
//!
//! Agents of one process share a verifier, which verifies an artifact only once under the active keys.
//! Checks that depend on the host or on the time are repeated by each agent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_proto::{ManifestHash, Timestamp};
use nixfleet_trust::{ActiveKeys, Artifact, Freshness, TrustFile, Verified, VerifyError, verify};

/// Artifacts of each kind that are remembered: a few releases of a few channels.
const CACHED_MAX: usize = 32;

/// Verifies artifacts against one trust file.
#[derive(Debug)]
pub struct Verifier {
    trust: TrustFile,
    manifests: VerifiedCache<RolloutManifest>,
    fleets: VerifiedCache<Fleet>,
}

impl Verifier {
    /// A verifier of artifacts of any age: the core asks for it when a walk begins.
    pub fn new(trust: TrustFile) -> Self {
        Self {
            trust,
            manifests: VerifiedCache::default(),
            fleets: VerifiedCache::default(),
        }
    }

    /// Verifies a rollout manifest.
    ///
    /// # Errors
    /// The first failing step of the verification.
    pub fn manifest(
        &self,
        bytes: &[u8],
        signature: &[u8],
        now: Timestamp,
    ) -> Result<Arc<Verified<RolloutManifest>>, VerifyError> {
        self.check(&self.manifests, (bytes, signature), now)
    }

    /// Verifies a fleet.
    ///
    /// # Errors
    /// The first failing step of the verification.
    pub fn fleet(
        &self,
        bytes: &[u8],
        signature: &[u8],
        now: Timestamp,
    ) -> Result<Arc<Verified<Fleet>>, VerifyError> {
        self.check(&self.fleets, (bytes, signature), now)
    }

    /// The rollout manifest that was verified with this signature, under the keys active now.
    pub fn cached_manifest(
        &self,
        signature: &[u8],
        now: Timestamp,
    ) -> Option<Arc<Verified<RolloutManifest>>> {
        let keys = self.trust.release_keys(now);
        self.manifests
            .find(|entry| *entry.signature == *signature && entry.keys == keys)
    }

    /// The fleet that was verified and has the hash a signed manifest names, under the keys active
    /// now.
    pub fn cached_fleet(
        &self,
        hash: &ManifestHash,
        now: Timestamp,
    ) -> Option<Arc<Verified<Fleet>>> {
        let keys = self.trust.release_keys(now);
        self.fleets
            .find(|entry| entry.verified.hash() == hash && entry.keys == keys)
    }

    fn check<T: Artifact>(
        &self,
        cache: &VerifiedCache<T>,
        (bytes, signature): (&[u8], &[u8]),
        now: Timestamp,
    ) -> Result<Arc<Verified<T>>, VerifyError> {
        let keys = self.trust.release_keys(now);
        let freshness = Freshness {
            now,
            window: Duration::MAX,
        };
        let verified = Arc::new(verify(bytes, signature, &keys, freshness)?);
        cache.keep(CacheEntry {
            signature: signature.into(),
            keys,
            verified: Arc::clone(&verified),
        });
        Ok(verified)
    }
}

/// Verified artifacts, newest last.
#[derive(Debug)]
struct VerifiedCache<T>(Mutex<VecDeque<CacheEntry<T>>>);

#[derive(Debug)]
struct CacheEntry<T> {
    signature: Box<[u8]>,
    keys: ActiveKeys,
    verified: Arc<Verified<T>>,
}

impl<T> Default for VerifiedCache<T> {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

impl<T> VerifiedCache<T> {
    fn find(&self, is_it: impl Fn(&CacheEntry<T>) -> bool) -> Option<Arc<Verified<T>>> {
        let entry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entry.iter().rev().find(|entry| is_it(entry))?;
        Some(Arc::clone(&known.verified))
    }

    fn keep(&self, new: CacheEntry<T>) {
        let mut entry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entry
            .iter()
            .any(|known| known.signature == new.signature && known.keys == new.keys)
        {
            return;
        }
        entry.push_back(new);
        if entry.len() > CACHED_MAX {
            entry.pop_front();
        }
    }
}
