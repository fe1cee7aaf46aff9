//! Public keys and detached signatures.
//!
//! The algorithm is a property of the trusted key, never of the artifact.
//!
//! Source: docs/manifests.md, signature algorithms.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nixfleet_proto::Timestamp;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::canonical_json::CanonicalText;

/// Length of every detached signature in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// Supported signature algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Algorithm {
    /// Ed25519, verified strictly.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA over P-256 with SHA-256.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
}

impl Algorithm {
    /// The name in trust files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
        }
    }

    /// The supported algorithm of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ed25519, Self::EcdsaP256]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }
}

/// A public key in trust files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustedKey {
    /// Name of the algorithm; keys with an unknown one are skipped.
    pub algorithm: String,
    /// The key, standard base64 with padding.
    pub public: String,
}

/// Error of a trusted key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum KeyError {
    #[error("algorithm {0:?} is not supported")]
    Unsupported(String),
    #[error("the public key is not standard base64")]
    NotBase64,
    #[error("the public key has {actual} bytes instead of {expected}")]
    Length { expected: usize, actual: usize },
    /// No point of the curve, or one of small order.
    #[error("the public key is not a usable point of its curve")]
    NoPoint,
}

#[derive(Debug, Clone)]
pub(crate) enum PublicKey {
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
    EcdsaP256(Box<p256::ecdsa::VerifyingKey>),
}

impl TrustedKey {
    pub(crate) fn decode(&self) -> Result<PublicKey, KeyError> {
        let algorithm = Algorithm::from_name(&self.algorithm)
            .ok_or_else(|| KeyError::Unsupported(self.algorithm.clone()))?;
        let bytes = STANDARD
            .decode(&self.public)
            .map_err(|_| KeyError::NotBase64)?;
        match algorithm {
            Algorithm::Ed25519 => {
                let bytes: [u8; 32] = sized(&bytes)?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes)
                    .map_err(|_| KeyError::NoPoint)?;
                if key.is_weak() {
                    return Err(KeyError::NoPoint);
                }
                Ok(PublicKey::Ed25519(Box::new(key)))
            }
            Algorithm::EcdsaP256 => {
                let bytes: [u8; 64] = sized(&bytes)?;
                // SEC1 marks an uncompressed point with a leading 4.
                let mut sec1 = [4_u8; 65];
                sec1[1..].copy_from_slice(&bytes);
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&sec1)
                    .map_err(|_| KeyError::NoPoint)?;
                Ok(PublicKey::EcdsaP256(Box::new(key)))
            }
        }
    }

    /// Checks that the key can verify.
    pub fn check(&self) -> Result<Algorithm, KeyError> {
        Ok(match self.decode()? {
            PublicKey::Ed25519(_) => Algorithm::Ed25519,
            PublicKey::EcdsaP256(_) => Algorithm::EcdsaP256,
        })
    }
}

fn sized<const N: usize>(bytes: &[u8]) -> Result<[u8; N], KeyError> {
    bytes.try_into().map_err(|_| KeyError::Length {
        expected: N,
        actual: bytes.len(),
    })
}

/// Bytes under a signature, written piece by piece: nobody need hold them before they are verified.
pub(crate) trait Message {
    /// Writes them, the same each time.
    fn write_to(&self, sink: &mut dyn FnMut(&[u8]));
}

impl Message for CanonicalText<'_> {
    fn write_to(&self, sink: &mut dyn FnMut(&[u8])) {
        CanonicalText::write_to(self, sink);
    }
}

impl Message for Vec<u8> {
    fn write_to(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(self);
    }
}

impl PublicKey {
    pub(crate) fn verifies(&self, message: &impl Message, signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => verifies_ed25519(key, message, signature).is_some(),
            Self::EcdsaP256(key) => {
                let mut hash = Sha256::new();
                message.write_to(&mut |piece| hash.update(piece));
                let hash = hash.finalize();
                // TPMs emit either of the two equivalent values of S.
                p256::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| {
                    key.verify_prehash(&hash, &signature.normalize_s()).is_ok()
                })
            }
        }
    }
}

/// Verifies as strictly as `verify_strict` of the library, which wants the message in one piece: an unreduced S,
/// and an R or key of small order, are refused.
fn verifies_ed25519(
    key: &ed25519_dalek::VerifyingKey,
    message: &impl Message,
    signature: &[u8],
) -> Option<()> {
    let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
    let r = ed25519_dalek::VerifyingKey::from_bytes(signature.r_bytes()).ok()?;
    if r.is_weak() || key.is_weak() {
        return None;
    }
    let mut verifier = key.verify_stream(&signature).ok()?;
    message.write_to(&mut |piece| verifier.update(piece));
    verifier.finalize_and_verify().ok()
}

/// The trusted keys at one instant, in the order of trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActiveKeys {
    /// Keys in order.
    pub keys: Vec<TrustedKey>,
    /// Artifacts signed earlier are rejected, for all keys.
    pub reject_before: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoMatch {
    /// No key has a supported algorithm; has the name of the first.
    Unsupported(String),
    Bad,
}

impl ActiveKeys {
    /// Tries the keys in order; malformed keys never match.
    pub(crate) fn verify(&self, message: &impl Message, signature: &[u8]) -> Result<(), NoMatch> {
        let mut supported = false;
        for key in &self.keys {
            match key.decode() {
                Ok(decoded) if decoded.verifies(message, signature) => return Ok(()),
                Err(KeyError::Unsupported(_)) => {}
                Ok(_) | Err(_) => supported = true,
            }
        }
        match self.keys.first() {
            Some(first) if !supported => Err(NoMatch::Unsupported(first.algorithm.clone())),
            Some(_) | None => Err(NoMatch::Bad),
        }
    }
}

#[cfg(test)]
mod tests;
