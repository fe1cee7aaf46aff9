//! `trust.json`: the trusted keys and their validity.
//!
//! Source: docs/manifests.md, `trust.json`.

use std::fmt;

use nixfleet_proto::Timestamp;
use nixfleet_proto::fleet::SCHEMA_VERSION;
use serde::{Deserialize, Serialize};

use crate::canonical_json::{CanonicalizeError, canonicalize};
use crate::keys::{ActiveKeys, KeyError, TrustedKey};

/// The trust file, installed with the system and unsigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustFile {
    /// Always 1.
    pub schema_version: u64,
    /// Keys that sign artifacts.
    pub ci_release_key: KeySlot,
    /// Keys for Nix, not interpreted.
    #[serde(default)]
    pub cache_keys: Vec<String>,
    /// Keys that sign enrollment tokens.
    #[serde(default)]
    pub org_root_key: Option<KeySlot>,
    /// Root of agent certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_ca_pem: Option<String>,
    /// Issuing authorities of agent certificates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuance_ca_pems: Vec<String>,
}

/// The keys of one role during a rotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeySlot {
    /// The signing key.
    #[serde(default)]
    pub current: Option<TrustedKey>,
    /// The former signing key; still trusted.
    #[serde(default)]
    pub previous: Option<TrustedKey>,
    /// The next signing key; trusted until `retire_at`, then only as `current`.
    #[serde(default)]
    pub successor: Option<TrustedKey>,
    /// Deadline to move the successor to `current`.
    #[serde(default)]
    pub retire_at: Option<Timestamp>,
    /// Rejects everything signed earlier, after a key compromise.
    #[serde(default)]
    pub reject_before: Option<Timestamp>,
}

/// Error of a trust file.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum TrustFileError {
    #[error("the trust file is ambiguous or malformed")]
    Text(#[source] CanonicalizeError),
    #[error("the trust file has missing or invalid fields")]
    Shape(#[source] serde_json::Error),
    #[error("the trust file has schema version {0}, this program reads 1")]
    SchemaVersion(u64),
}

/// A notice about the trust file that blocks nothing and needs attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustNotice {
    /// `ciReleaseKey` or `orgRootKey`.
    pub slot: &'static str,
    /// The kind.
    pub kind: TrustNoticeKind,
}

/// The kinds of notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustNoticeKind {
    /// A key is unusable and skipped.
    UnusableKey {
        /// `current`, `previous` or `successor`.
        place: &'static str,
        /// The fault of the key.
        error: KeyError,
    },
    /// `retireAt` has passed: the successor is rejected until it becomes `current`.
    RotationDue {
        /// The deadline.
        retire_at: Timestamp,
    },
    /// A successor without `retireAt` is never trusted.
    SuccessorWithoutDeadline,
    /// The slot has no key at all.
    NoKey,
}

impl TrustNotice {
    /// Name for metrics.
    pub fn name(&self) -> &'static str {
        match self.kind {
            TrustNoticeKind::UnusableKey { .. } => "unusable-key",
            TrustNoticeKind::RotationDue { .. } => "rotation-due",
            TrustNoticeKind::SuccessorWithoutDeadline => "successor-without-deadline",
            TrustNoticeKind::NoKey => "no-key",
        }
    }
}

impl fmt::Display for TrustNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = self.slot;
        match &self.kind {
            TrustNoticeKind::UnusableKey { place, error } => {
                write!(f, "{slot}.{place} is skipped: {error}")
            }
            TrustNoticeKind::RotationDue { retire_at } => write!(
                f,
                "{slot}.successor is refused since {}: move it to {slot}.current",
                retire_at.to_rfc3339()
            ),
            TrustNoticeKind::SuccessorWithoutDeadline => {
                write!(
                    f,
                    "{slot}.successor is not believed without {slot}.retireAt"
                )
            }
            TrustNoticeKind::NoKey => write!(f, "{slot} has no key"),
        }
    }
}

impl TrustFile {
    /// Reads a trust file; unknown keys are ignored.
    ///
    /// # Errors
    /// For malformed or ambiguous JSON (with duplicate keys, two readers could trust different keys), a
    /// missing `ciReleaseKey` and other schema versions. Malformed keys are not an error: they are skipped
    /// and reported by [`TrustFile::notices`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TrustFileError> {
        let canonical = canonicalize(bytes).map_err(TrustFileError::Text)?;
        let file: Self = serde_json::from_slice(&canonical).map_err(TrustFileError::Shape)?;
        if file.schema_version != SCHEMA_VERSION {
            return Err(TrustFileError::SchemaVersion(file.schema_version));
        }
        Ok(file)
    }

    /// A trust file with one key.
    pub fn of(key: TrustedKey) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            ci_release_key: KeySlot {
                current: Some(key),
                ..KeySlot::default()
            },
            cache_keys: Vec::new(),
            org_root_key: None,
            root_ca_pem: None,
            issuance_ca_pems: Vec::new(),
        }
    }

    /// Trusted keys of artifacts at `now`.
    pub fn release_keys(&self, now: Timestamp) -> ActiveKeys {
        self.ci_release_key.active(now)
    }

    /// Trusted keys of enrollment tokens at `now`.
    pub fn org_root_keys(&self, now: Timestamp) -> ActiveKeys {
        self.org_root_key
            .as_ref()
            .map(|slot| slot.active(now))
            .unwrap_or_default()
    }

    /// Notices at `now`.
    pub fn notices(&self, now: Timestamp) -> Vec<TrustNotice> {
        let mut notices = self.ci_release_key.notices("ciReleaseKey", now);
        if let Some(slot) = &self.org_root_key {
            notices.extend(slot.notices("orgRootKey", now));
        }
        notices
    }
}

impl KeySlot {
    /// `[current, previous]`, and `successor` last while `now` is before `retireAt`.
    pub fn active(&self, now: Timestamp) -> ActiveKeys {
        let successor = match (&self.successor, self.retire_at) {
            (Some(key), Some(retire_at)) if now < retire_at => Some(key),
            (Some(_) | None, Some(_) | None) => None,
        };
        ActiveKeys {
            keys: [self.current.as_ref(), self.previous.as_ref(), successor]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            reject_before: self.reject_before,
        }
    }

    fn notices(&self, slot: &'static str, now: Timestamp) -> Vec<TrustNotice> {
        let places = [
            ("current", &self.current),
            ("previous", &self.previous),
            ("successor", &self.successor),
        ];
        let mut kinds: Vec<TrustNoticeKind> = places
            .into_iter()
            .filter_map(|(place, key)| {
                let error = key.as_ref()?.check().err()?;
                Some(TrustNoticeKind::UnusableKey { place, error })
            })
            .collect();
        match (&self.successor, self.retire_at) {
            (Some(_), Some(retire_at)) if retire_at <= now => {
                kinds.push(TrustNoticeKind::RotationDue { retire_at });
            }
            (Some(_), None) => kinds.push(TrustNoticeKind::SuccessorWithoutDeadline),
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
        if self.active(now).keys.is_empty() {
            kinds.push(TrustNoticeKind::NoKey);
        }
        kinds
            .into_iter()
            .map(|kind| TrustNotice { slot, kind })
            .collect()
    }
}

#[cfg(test)]
mod tests;
