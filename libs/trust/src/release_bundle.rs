//! Unverified releases: signed bytes in transit.
//!
//! A bundle has three forms: a directory or its copy on an HTTP server, the body of `PUT /v1/manifests`,
//! and an announcement with objects in the object store.
//!
//! Source: docs/manifests.md, from source to control plane.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nixfleet_proto::fleet::{ArtifactRef, ReleaseAnnouncement};
use nixfleet_proto::{ChannelName, ManifestHash, RolloutId};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::parallel::join;

/// Path of the fleet inside a release directory.
pub const FLEET_FILE: &str = "fleet.resolved.json";

/// Suffix of the path of a signature.
pub const SIGNATURE_SUFFIX: &str = ".sig";

/// Path of a rollout manifest inside a release directory.
pub fn rollout_file(rollout_id: &RolloutId) -> String {
    format!("rollouts/{rollout_id}.json")
}

/// Path of an artifact's detached signature.
pub fn signature_file(artifact: &str) -> String {
    format!("{artifact}{SIGNATURE_SUFFIX}")
}

/// One artifact as received, with its detached signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signed {
    /// The received bytes, canonical or not.
    pub bytes: Vec<u8>,
    /// The raw signature over the canonical form.
    pub signature: Vec<u8>,
}

/// A fleet with its rollout manifests by channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReleaseBundle {
    /// The fleet.
    pub fleet: Signed,
    /// One rollout manifest per channel with hosts.
    pub rollouts: BTreeMap<ChannelName, Signed>,
}

/// Body of `PUT /v1/manifests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseUpload<T = String> {
    /// The fleet.
    pub fleet: SignedUpload<T>,
    /// Rollout manifests by channel, at most [`UPLOADED_ROLLOUTS_MAX`].
    #[serde(deserialize_with = "bounded")]
    #[serde(bound(deserialize = "T: Deserialize<'de>"))]
    pub rollouts: BTreeMap<ChannelName, SignedUpload<T>>,
}

/// Most rollout manifests of an upload: nobody has signed their number, and small ones take many times their size
/// in memory.
pub const UPLOADED_ROLLOUTS_MAX: usize = 10_000;

fn bounded<'de, D, T>(deserializer: D) -> Result<BTreeMap<ChannelName, SignedUpload<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Rollouts<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Rollouts<T> {
        type Value = BTreeMap<ChannelName, SignedUpload<T>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(
                f,
                "a map of at most {UPLOADED_ROLLOUTS_MAX} rollout manifests"
            )
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut rollouts = BTreeMap::new();
            while let Some((channel, signed)) = access.next_entry()? {
                if rollouts.len() == UPLOADED_ROLLOUTS_MAX {
                    return Err(A::Error::invalid_length(rollouts.len() + 1, &self));
                }
                rollouts.insert(channel, signed);
            }
            Ok(rollouts)
        }
    }

    deserializer.deserialize_map(Rollouts(PhantomData))
}

/// One artifact in an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedUpload<T = String> {
    /// The bytes, standard base64.
    pub artifact: T,
    /// The signature, standard base64.
    pub signature: T,
}

/// A text borrowed from the request body, unless it has escapes: avoids a copy of a large release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BorrowedText<'b>(#[serde(borrow)] Cow<'b, str>);

impl AsRef<str> for BorrowedText<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Error of assembling a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum BundleError {
    #[error("the {part} of {artifact} is not standard base64")]
    NotBase64 {
        artifact: String,
        /// `artifact` or `signature`.
        part: &'static str,
    },
    #[error("the object {hash} of {artifact} is missing")]
    ObjectMissing {
        artifact: String,
        hash: ManifestHash,
    },
}

impl BundleError {
    /// Name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotBase64 { .. } => "NotBase64",
            Self::ObjectMissing { .. } => "ObjectUnusable",
        }
    }
}

impl From<&Signed> for SignedUpload {
    fn from(signed: &Signed) -> Self {
        Self {
            artifact: STANDARD.encode(&signed.bytes),
            signature: STANDARD.encode(&signed.signature),
        }
    }
}

impl From<&ReleaseBundle> for ReleaseUpload {
    fn from(bundle: &ReleaseBundle) -> Self {
        Self {
            fleet: SignedUpload::from(&bundle.fleet),
            rollouts: bundle
                .rollouts
                .iter()
                .map(|(channel, signed)| (channel.clone(), SignedUpload::from(signed)))
                .collect(),
        }
    }
}

impl<T: AsRef<str> + Sync> TryFrom<&ReleaseUpload<T>> for ReleaseBundle {
    type Error = BundleError;

    /// Decodes the fleet and the manifests in parallel.
    fn try_from(upload: &ReleaseUpload<T>) -> Result<Self, BundleError> {
        let decode = |artifact: &str, signed: &SignedUpload<T>| {
            Ok(Signed {
                bytes: decode(artifact, "artifact", signed.artifact.as_ref())?,
                signature: decode(artifact, "signature", signed.signature.as_ref())?,
            })
        };
        let decode_rollouts = || {
            let rollouts = upload.rollouts.iter();
            let decoded = rollouts
                .map(|(channel, signed)| Ok((channel.clone(), decode(channel.as_str(), signed)?)));
            decoded.collect::<Result<_, BundleError>>()
        };
        let (fleet, rollouts) = join(|| decode("fleet", &upload.fleet), decode_rollouts);
        Ok(Self {
            fleet: fleet?,
            rollouts: rollouts?,
        })
    }
}

impl ReleaseBundle {
    /// Assembles an announced release from its objects, in the order of
    /// [`ReleaseAnnouncement::artifacts`]. The result is not verified.
    ///
    /// # Errors
    /// The first missing object, or signature that is not base64.
    pub(crate) fn assemble(
        announcement: &ReleaseAnnouncement,
        objects: impl IntoIterator<Item = Option<Vec<u8>>>,
    ) -> Result<Self, BundleError> {
        let mut objects = objects.into_iter();
        let mut fetch = |artifact: &str, reference: &ArtifactRef| {
            let bytes = objects.next().flatten();
            let bytes = bytes.ok_or_else(|| BundleError::ObjectMissing {
                artifact: artifact.to_owned(),
                hash: reference.hash.clone(),
            })?;
            Ok(Signed {
                bytes,
                signature: decode(artifact, "signature", &reference.signature)?,
            })
        };
        Ok(Self {
            fleet: fetch("fleet", &announcement.fleet)?,
            rollouts: announcement
                .rollouts
                .iter()
                .map(|(channel, rollout)| {
                    Ok((channel.clone(), fetch(channel.as_str(), &rollout.artifact)?))
                })
                .collect::<Result<_, BundleError>>()?,
        })
    }
}

fn decode(artifact: &str, part: &'static str, text: &str) -> Result<Vec<u8>, BundleError> {
    STANDARD.decode(text).map_err(|_| BundleError::NotBase64 {
        artifact: artifact.to_owned(),
        part,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_carries_a_bundle_unchanged() {
        let bundle = ReleaseBundle {
            fleet: Signed {
                bytes: b"{}".to_vec(),
                signature: vec![7; 64],
            },
            rollouts: [(ChannelName::from("stable"), Signed::default())].into(),
        };
        let json = serde_json::to_string(&ReleaseUpload::from(&bundle)).unwrap();
        let upload: ReleaseUpload = serde_json::from_str(&json).unwrap();
        assert_eq!(ReleaseBundle::try_from(&upload).unwrap(), bundle);
    }

    #[test]
    fn an_upload_has_a_bounded_number_of_manifests() {
        let upload = |count: usize| {
            let signed = r#"{"artifact":"","signature":""}"#;
            let rollouts: Vec<String> = (0..count).map(|n| format!(r#""{n}":{signed}"#)).collect();
            let rollouts = rollouts.join(",");
            let json = format!(r#"{{"fleet":{signed},"rollouts":{{{rollouts}}}}}"#);
            serde_json::from_str::<ReleaseUpload>(&json).map(|upload| upload.rollouts.len())
        };
        assert_eq!(
            upload(UPLOADED_ROLLOUTS_MAX).unwrap(),
            UPLOADED_ROLLOUTS_MAX
        );
        assert!(upload(UPLOADED_ROLLOUTS_MAX + 1).is_err());
    }

    #[test]
    fn an_upload_is_read_without_a_copy() {
        let json = r#"{"fleet":{"artifact":"e30=","signature":"Bw=="},
            "rollouts":{"stable":{"artifact":"\/+8=","signature":""}}}"#;
        let upload: ReleaseUpload<BorrowedText<'_>> = serde_json::from_str(json).unwrap();
        assert!(matches!(upload.fleet.artifact.0, Cow::Borrowed("e30=")));
        let copied: ReleaseUpload = serde_json::from_str(json).unwrap();
        let bundle = ReleaseBundle::try_from(&upload).unwrap();
        assert_eq!(bundle, ReleaseBundle::try_from(&copied).unwrap());
        assert_eq!(
            bundle.rollouts[&ChannelName::from("stable")].bytes,
            [255, 239]
        );
    }

    #[test]
    fn broken_base64_names_its_part() {
        let mut upload = ReleaseUpload::from(&ReleaseBundle::default());
        upload.fleet.signature = "%%".into();
        assert_eq!(
            ReleaseBundle::try_from(&upload).unwrap_err().to_string(),
            "the signature of fleet is not standard base64"
        );
    }
}
