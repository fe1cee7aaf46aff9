//! Signing, for CI, consoles and tests. The control plane has no key that signs artifacts: a console has one that
//! signs commands.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use nixfleet_proto::fleet::SCHEMA_VERSION;
use serde::{Deserialize, Serialize};

use crate::canonical_json::{CanonicalizeError, canonicalize};
use crate::keys::{Algorithm, SIGNATURE_BYTES, TrustedKey};

/// A private key.
pub struct SigningKey(Secret);

enum Secret {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    EcdsaP256(Box<p256::ecdsa::SigningKey>),
}

/// The key file of `nixfleet keygen`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyFile {
    /// Always 1.
    pub schema_version: u64,
    /// Signature algorithm.
    pub algorithm: Algorithm,
    /// Public key, as in trust files.
    pub public: String,
    /// The 32 secret bytes, standard base64.
    pub private: String,
}

/// Error of a private key.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum SigningKeyError {
    /// Has no cause, which could quote the secret.
    #[error("the key file is not the JSON that `nixfleet keygen` writes")]
    Shape,
    #[error("the key file has schema version {0}, this program reads 1")]
    SchemaVersion(u64),
    #[error("the secret is not 32 bytes that make a {0} key")]
    Secret(&'static str),
    #[error("the public key of the key file does not belong to its secret")]
    PublicHalf,
}

impl SigningKey {
    /// Makes a key of 32 secret bytes, from a secure random source of the caller.
    ///
    /// # Errors
    /// P-256 rejects about one in 2^32 byte strings: draw again.
    pub fn from_secret(algorithm: Algorithm, secret: &[u8; 32]) -> Result<Self, SigningKeyError> {
        Ok(Self(match algorithm {
            Algorithm::Ed25519 => {
                Secret::Ed25519(Box::new(ed25519_dalek::SigningKey::from_bytes(secret)))
            }
            Algorithm::EcdsaP256 => Secret::EcdsaP256(Box::new(
                p256::ecdsa::SigningKey::from_slice(secret)
                    .map_err(|_| SigningKeyError::Secret(algorithm.name()))?,
            )),
        }))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// The fault, without the secret.
    pub fn parse(bytes: &[u8]) -> Result<Self, SigningKeyError> {
        let file: KeyFile = serde_json::from_slice(bytes).map_err(|_| SigningKeyError::Shape)?;
        if file.schema_version != SCHEMA_VERSION {
            return Err(SigningKeyError::SchemaVersion(file.schema_version));
        }
        let refused = || SigningKeyError::Secret(file.algorithm.name());
        let secret = STANDARD.decode(&file.private).map_err(|_| refused())?;
        let secret: [u8; 32] = secret.try_into().map_err(|_| refused())?;
        let key = Self::from_secret(file.algorithm, &secret)?;
        if key.public().public != file.public {
            return Err(SigningKeyError::PublicHalf);
        }
        Ok(key)
    }

    /// The key as a file.
    pub fn to_file(&self) -> KeyFile {
        let private = match &self.0 {
            Secret::Ed25519(key) => STANDARD.encode(key.to_bytes()),
            Secret::EcdsaP256(key) => STANDARD.encode(key.to_bytes()),
        };
        KeyFile {
            schema_version: SCHEMA_VERSION,
            algorithm: self.algorithm(),
            public: self.public().public,
            private,
        }
    }

    /// Signature algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Secret::Ed25519(_) => Algorithm::Ed25519,
            Secret::EcdsaP256(_) => Algorithm::EcdsaP256,
        }
    }

    /// The public key, as in trust files.
    pub fn public(&self) -> TrustedKey {
        let public = match &self.0 {
            Secret::Ed25519(key) => STANDARD.encode(key.verifying_key().to_bytes()),
            // Without the leading byte that marks an uncompressed point.
            Secret::EcdsaP256(key) => {
                STANDARD.encode(&key.verifying_key().to_sec1_point(false).as_bytes()[1..])
            }
        };
        TrustedKey {
            algorithm: self.algorithm().name().to_owned(),
            public,
        }
    }

    /// Signs a JSON document: its canonical bytes, and the signature over them.
    pub fn sign_json(
        &self,
        document: &[u8],
    ) -> Result<(Vec<u8>, [u8; SIGNATURE_BYTES]), CanonicalizeError> {
        let canonical = canonicalize(document)?;
        let signature = self.sign(&canonical);
        Ok((canonical.into_owned(), signature))
    }

    /// Signs canonical bytes. Deterministic: the same bytes give the same signature.
    pub fn sign(&self, canonical: &[u8]) -> [u8; SIGNATURE_BYTES] {
        match &self.0 {
            Secret::Ed25519(key) => key.sign(canonical).to_bytes(),
            Secret::EcdsaP256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(canonical);
                signature.to_bytes().into()
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, secret hidden)", self.algorithm().name())
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({}, secret hidden)", self.algorithm.name())
    }
}

#[cfg(test)]
mod tests;
