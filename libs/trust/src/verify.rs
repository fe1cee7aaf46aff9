//! The one way from bytes to something believed.
//!
//! Source: docs/manifests.md, verification.

use std::time::Duration;

use nixfleet_proto::fleet::SCHEMA_VERSION;
use nixfleet_proto::{ManifestHash, Timestamp, json};

use crate::artifact::Artifact;
use crate::canonical::{CanonicalizeError, Hashes, canonicalize, hashes_of};
use crate::keys::{ActiveKeys, NoMatch};

/// How far clocks may differ, in both directions.
pub const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// How old an artifact may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The reader's clock.
    pub now: Timestamp,
    /// Largest age, [`CLOCK_SLACK`] not counted.
    pub window: Duration,
}

/// An artifact that was verified: signed by a believed key, understood, and fresh.
///
/// [`verify`] is the only way to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    payload: T,
    signed_at: Timestamp,
    hashes: Hashes,
}

impl<T> Verified<T> {
    /// What was signed, normalised.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// The same, as a value of its own; it is no proof any more.
    pub fn into_payload(self) -> T {
        self.payload
    }

    /// When it was signed.
    pub fn signed_at(&self) -> Timestamp {
        self.signed_at
    }

    /// Hash of its canonical bytes.
    pub fn hash(&self) -> &ManifestHash {
        &self.hashes.whole
    }

    /// Hash of what it says, apart from its signing.
    pub(crate) fn content(&self) -> &ManifestHash {
        &self.hashes.content
    }
}

/// Why an artifact is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no key to verify with.
    #[error("no key is trusted")]
    NoTrustRoots,
    /// The bytes are no JSON.
    #[error("the bytes cannot be read")]
    NotJson(#[source] CanonicalizeError),
    /// The JSON has no canonical form.
    #[error("the document has no canonical form")]
    Canonicalize(#[source] CanonicalizeError),
    /// No trusted key has an algorithm we know.
    #[error("no trusted key has a supported algorithm, the first is {algorithm:?}")]
    UnsupportedAlgorithm {
        /// Algorithm of the first key.
        algorithm: String,
    },
    /// No trusted key verifies the signature.
    #[error("the signature is not that of a trusted key over these bytes")]
    BadSignature,
    /// The document is signed but has another shape.
    #[error("the document is not a {kind}")]
    Shape {
        /// What was expected.
        kind: &'static str,
        /// What is missing or wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The document has another layout.
    #[error("schema version {0} is not supported")]
    SchemaVersionUnsupported(u64),
    /// `meta.signedAt` is absent.
    #[error("the document does not say when it was signed")]
    NotSigned,
    /// Signed before the compromise switch.
    #[error("signed at {signed_at}, everything before {reject_before} is refused")]
    RejectedBeforeTimestamp {
        /// Its time of signing.
        signed_at: Timestamp,
        /// The switch.
        reject_before: Timestamp,
    },
    /// Too old.
    #[error("signed at {signed_at}, more than {} s ago", window.as_secs())]
    Stale {
        /// Its time of signing.
        signed_at: Timestamp,
        /// The age allowed.
        window: Duration,
    },
    /// Signed later than now.
    #[error("signed at {signed_at}, which is in the future")]
    FutureDated {
        /// Its time of signing.
        signed_at: Timestamp,
    },
}

impl VerifyError {
    /// The name of the failed step.
    ///
    /// Source: docs/manifests.md, verification.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoTrustRoots => "NoTrustRoots",
            Self::NotJson(_) | Self::Shape { .. } => "Parse",
            Self::Canonicalize(_) => "Canonicalize",
            Self::UnsupportedAlgorithm { .. } => "UnsupportedAlgorithm",
            Self::BadSignature => "BadSignature",
            Self::SchemaVersionUnsupported(_) => "SchemaVersionUnsupported",
            Self::NotSigned => "NotSigned",
            Self::RejectedBeforeTimestamp { .. } => "RejectedBeforeTimestamp",
            Self::Stale { .. } => "Stale",
            Self::FutureDated { .. } => "FutureDated",
        }
    }
}

/// Verifies an artifact with its detached signature.
///
/// # Errors
/// The first of the ten steps that fails.
///
/// Source: docs/manifests.md, verification.
pub fn verify<T: Artifact>(
    bytes: &[u8],
    signature: &[u8],
    keys: &ActiveKeys,
    freshness: Freshness,
) -> Result<Verified<T>, VerifyError> {
    if keys.keys.is_empty() {
        return Err(VerifyError::NoTrustRoots);
    }
    let canonical = canonicalize(bytes).map_err(|error| {
        if error.is_parse() {
            VerifyError::NotJson(error)
        } else {
            VerifyError::Canonicalize(error)
        }
    })?;
    keys.verify(&canonical, signature)
        .map_err(|no_match| match no_match {
            NoMatch::Unsupported(algorithm) => VerifyError::UnsupportedAlgorithm { algorithm },
            NoMatch::Bad => VerifyError::BadSignature,
        })?;
    let mut payload: T = json::read(&canonical).map_err(|source| VerifyError::Shape {
        kind: T::KIND,
        source,
    })?;
    if payload.schema_version() != SCHEMA_VERSION {
        return Err(VerifyError::SchemaVersionUnsupported(
            payload.schema_version(),
        ));
    }
    let signed_at = payload.meta().signed_at.ok_or(VerifyError::NotSigned)?;
    check_time(signed_at, keys.reject_before, freshness)?;
    payload.normalise();
    Ok(Verified {
        payload,
        signed_at,
        hashes: hashes_of(&canonical),
    })
}

/// Steps 8 to 10.
fn check_time(
    signed_at: Timestamp,
    reject_before: Option<Timestamp>,
    freshness: Freshness,
) -> Result<(), VerifyError> {
    if let Some(reject_before) = reject_before
        && signed_at < reject_before
    {
        return Err(VerifyError::RejectedBeforeTimestamp {
            signed_at,
            reject_before,
        });
    }
    let Freshness { now, window } = freshness;
    // Exactly one of the two differences is not negative; a negative one is no `Duration`.
    if let Ok(age) = now.signed_duration_since(signed_at).to_std()
        && age > window.saturating_add(CLOCK_SLACK)
    {
        return Err(VerifyError::Stale { signed_at, window });
    }
    if let Ok(ahead) = signed_at.signed_duration_since(now).to_std()
        && ahead > CLOCK_SLACK
    {
        return Err(VerifyError::FutureDated { signed_at });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
