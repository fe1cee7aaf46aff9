//! Signatures of artifacts against the trust file, with a memory for bytes that were seen before.
//!
//! Agents of one process share a verifier: what was verified once, byte for byte and under the same
//! active keys, is not parsed and verified again. Everything that depends on the host or on the time
//! is still compared by each agent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_proto::{ManifestHash, Timestamp};
use nixfleet_trust::{ActiveKeys, Artifact, Freshness, TrustFile, Verified, VerifyError, verify};

/// Artifacts of each kind that are remembered: a few releases of a few channels.
const REMEMBERED_MAX: usize = 32;

/// Verifies artifacts against one trust file.
#[derive(Debug)]
pub struct Verifier {
    trust: TrustFile,
    window: Duration,
    manifests: Mutex<Memory<RolloutManifest>>,
    fleets: Mutex<Memory<Fleet>>,
}

#[derive(Debug)]
struct Memory<T>(VecDeque<Seen<T>>);

#[derive(Debug)]
struct Seen<T> {
    bytes: Box<[u8]>,
    signature: Box<[u8]>,
    keys: ActiveKeys,
    verified: Arc<Verified<T>>,
}

impl Verifier {
    /// A verifier that refuses artifacts older than `window`.
    pub fn new(trust: TrustFile, window: Duration) -> Self {
        Self {
            trust,
            window,
            manifests: Mutex::new(Memory(VecDeque::new())),
            fleets: Mutex::new(Memory(VecDeque::new())),
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
        self.check(&self.manifests, bytes, signature, now)
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
        self.check(&self.fleets, bytes, signature, now)
    }

    /// A fleet that was verified under the keys active now, by the hash a signed manifest names.
    pub fn known_fleet(&self, hash: &ManifestHash, now: Timestamp) -> Option<Arc<Verified<Fleet>>> {
        let keys = self.trust.release_keys(now);
        let memory = self.fleets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = memory.0.iter();
        let known = seen.find(|seen| seen.keys == keys && seen.verified.hash() == hash)?;
        self.is_fresh(&known.verified, now)
            .then(|| Arc::clone(&known.verified))
    }

    fn check<T: Artifact>(
        &self,
        memory: &Mutex<Memory<T>>,
        bytes: &[u8],
        signature: &[u8],
        now: Timestamp,
    ) -> Result<Arc<Verified<T>>, VerifyError> {
        let keys = self.trust.release_keys(now);
        {
            let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            let known = memory.0.iter().find(|seen| {
                *seen.bytes == *bytes && *seen.signature == *signature && seen.keys == keys
            });
            if let Some(known) = known
                && self.is_fresh(&known.verified, now)
            {
                return Ok(Arc::clone(&known.verified));
            }
        }
        let freshness = Freshness {
            now,
            window: self.window,
        };
        let verified = Arc::new(verify(bytes, signature, &keys, freshness)?);
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.0.push_back(Seen {
            bytes: bytes.into(),
            signature: signature.into(),
            keys,
            verified: Arc::clone(&verified),
        });
        if memory.0.len() > REMEMBERED_MAX {
            memory.0.pop_front();
        }
        Ok(verified)
    }

    fn is_fresh<T>(&self, verified: &Verified<T>, now: Timestamp) -> bool {
        let window = TimeDelta::from_std(self.window).unwrap_or(TimeDelta::MAX);
        now - verified.signed_at() <= window
    }
}
