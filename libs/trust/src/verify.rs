//! Verification of signed artifacts.
//!
//! Source: docs/manifests.md, verification.

use std::time::Duration;

use nixfleet_proto::fleet::SCHEMA_VERSION;
use nixfleet_proto::{HostnameError, ManifestHash, Timestamp, json};

use crate::artifact::Artifact;
use crate::canonical_json::{CanonicalText, CanonicalizeError, Hashes, hashes_of};
use crate::illegal_hostnames::illegal_hostnames;
use crate::keys::{ActiveKeys, NoMatch};

/// Tolerated difference between clocks, in both directions.
pub const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// Most illegal names in the message of an error.
const HOSTNAMES_LISTED_MAX: usize = 100;

/// Allowed age of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Current time of the reader.
    pub now: Timestamp,
    /// Largest age, [`CLOCK_SLACK`] not counted.
    pub window: Duration,
}

/// A verified artifact: signed by a trusted key, of a supported layout, and fresh.
///
/// [`verify`] is the only constructor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    payload: T,
    signed_at: Timestamp,
    hashes: Hashes,
}

impl<T> Verified<T> {
    /// The signed document, normalised.
    pub fn payload(&self) -> &T {
        &self.payload
    }

    /// Extracts the document, which no longer proves its verification.
    pub fn into_payload(self) -> T {
        self.payload
    }

    /// Time of signing.
    pub fn signed_at(&self) -> Timestamp {
        self.signed_at
    }

    /// Hash of the canonical bytes.
    pub fn hash(&self) -> &ManifestHash {
        &self.hashes.whole
    }

    /// Hash of the content, which a renewed signature does not change.
    ///
    /// Source: docs/semantics.md, admission.
    pub fn content_hash(&self) -> &ManifestHash {
        &self.hashes.content
    }
}

/// Error of a verification.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum VerifyError {
    #[error("no key is trusted")]
    NoTrustRoots,
    #[error("the bytes cannot be read")]
    NotJson(#[source] CanonicalizeError),
    #[error("the document has no canonical form")]
    Canonicalize(#[source] CanonicalizeError),
    #[error("no trusted key has a supported algorithm, the first is {algorithm:?}")]
    UnsupportedAlgorithm { algorithm: String },
    #[error("the signature is not that of a trusted key over these bytes")]
    BadSignature,
    #[error("the document is not a {kind}")]
    Shape {
        kind: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("names of hosts are illegal: {}", listed(.0))]
    Hostnames(Vec<HostnameError>),
    #[error("schema version {0} is not supported")]
    SchemaVersionUnsupported(u64),
    /// `meta.signedAt` is absent.
    #[error("the document has no time of signing")]
    NotSigned,
    /// Signed before `rejectBefore`.
    #[error("signed at {signed_at}, everything before {reject_before} is refused")]
    RejectedBeforeTimestamp {
        signed_at: Timestamp,
        reject_before: Timestamp,
    },
    #[error("signed at {signed_at}, more than {} s ago", window.as_secs())]
    Stale {
        signed_at: Timestamp,
        window: Duration,
    },
    #[error("signed at {signed_at}, which is in the future")]
    FutureDated { signed_at: Timestamp },
}

impl VerifyError {
    /// The name of the failed step.
    ///
    /// Source: docs/manifests.md, verification.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoTrustRoots => "NoTrustRoots",
            Self::NotJson(_) | Self::Shape { .. } | Self::Hostnames(_) => "Parse",
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
    let text = CanonicalText::read(bytes).map_err(|error| {
        if error.is_parse() {
            VerifyError::NotJson(error)
        } else {
            VerifyError::Canonicalize(error)
        }
    })?;
    keys.verify(&text, signature)
        .map_err(|no_match| match no_match {
            NoMatch::Unsupported(algorithm) => VerifyError::UnsupportedAlgorithm { algorithm },
            NoMatch::Bad => VerifyError::BadSignature,
        })?;
    // Whoever signs may take more memory.
    let canonical = text.into_bytes();
    let mut payload: T = json::read(&canonical).map_err(|source| shape::<T>(&canonical, source))?;
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

/// The fault of a document that is no `T`; lists all names of hosts when one of them is at fault.
fn shape<T: Artifact>(canonical: &[u8], source: serde_json::Error) -> VerifyError {
    match illegal_hostnames(canonical) {
        faults if faults.is_empty() => VerifyError::Shape {
            kind: T::KIND,
            source,
        },
        faults => VerifyError::Hostnames(faults),
    }
}

fn listed(faults: &[HostnameError]) -> String {
    let mut listed: Vec<String> = faults
        .iter()
        .take(HOSTNAMES_LISTED_MAX)
        .map(ToString::to_string)
        .collect();
    if let Some(omitted) = faults
        .len()
        .checked_sub(HOSTNAMES_LISTED_MAX)
        .filter(|omitted| *omitted > 0)
    {
        listed.push(format!("and {omitted} more"));
    }
    listed.join("; ")
}

/// Steps 8 to 10: time of signing.
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
    // `to_std` fails for a negative difference, so at most one check applies.
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
