//! Builds a signed release from a fleet source: the pure part of `nixfleet release`.
//!
//! A source is a fleet that may omit derived parts: `waves` of a channel derive from the selectors of its
//! policy, `meta` from the stamp.
//!
//! Source: docs/manifests.md, from source to control plane.

mod fleet_source;
mod source_keys;

use std::collections::BTreeMap;

use nixfleet_proto::fleet::{Fleet, Meta, RolloutManifest, SCHEMA_VERSION};
use nixfleet_proto::{ChannelName, RolloutId, Timestamp};
use serde::Serialize;

use crate::admission::{
    AdmissionError, Fault, Findings, Notice, check_fleet, refuse_edges_across_channels,
};
use crate::artifact::Artifact;
use crate::canonical_json::{canonicalize, hash_of};
use crate::release_bundle::{ReleaseBundle, Signed};
use crate::rollout_manifest::project_all;
use crate::sign::SigningKey;
use source_keys::CarriedValues;

/// Time and commit of a signed release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseStamp {
    /// Time of signing.
    pub signed_at: Timestamp,
    /// The commit, lower-case hexadecimal; overrides the source's `meta.ciCommit`.
    pub commit: Option<String>,
}

/// A signed release with notices.
#[derive(Debug, Clone)]
pub struct BuiltRelease {
    /// The artifacts, in canonical form, with their signatures.
    pub bundle: ReleaseBundle,
    /// The ids of its rollouts.
    pub rollouts: BTreeMap<ChannelName, RolloutId>,
    /// Notices for people.
    pub notices: Vec<Notice>,
}

/// Resolves, checks, projects and signs a release.
///
/// # Errors
/// All faults of the source; a faulty fleet is never signed.
pub fn build_release(
    source: &[u8],
    stamp: &ReleaseStamp,
    key: &SigningKey,
) -> Result<BuiltRelease, AdmissionError> {
    let mut findings = Findings::default();
    let resolved = resolve_source(source, stamp, key, &mut findings);
    let Some((fleet, carried)) = resolved.filter(|_| findings.is_clean()) else {
        findings.into_result()?;
        return Err(unreadable("it has no fleet"));
    };
    let notices = findings.into_result()?;
    let signed_fleet = if carried.is_empty() {
        sign(&fleet, key)
    } else {
        let document = serde_json::to_value(&fleet);
        let mut document = document.map_err(|error| unreadable(error.to_string()))?;
        carried.add_to(&mut document);
        sign(&document, key)
    };
    let hash = hash_of(&signed_fleet.bytes);
    let manifests = project_all(&fleet, &hash).map_err(|error| unreadable(error.to_string()))?;
    Ok(BuiltRelease {
        rollouts: manifests
            .iter()
            .map(|(channel, manifest)| (channel.clone(), manifest.rollout_id()))
            .collect(),
        bundle: ReleaseBundle {
            fleet: signed_fleet,
            rollouts: manifests
                .iter()
                .map(|(channel, manifest)| {
                    (channel.clone(), sign::<RolloutManifest>(manifest, key))
                })
                .collect(),
        },
        notices,
    })
}

/// The fleet to sign; adds its faults to `findings`.
fn resolve_source(
    source: &[u8],
    stamp: &ReleaseStamp,
    key: &SigningKey,
    findings: &mut Findings,
) -> Option<(Fleet, CarriedValues)> {
    let (mut fleet, carried) = fleet_source::read(source, findings)?;
    fleet.meta = Meta {
        schema_version: SCHEMA_VERSION,
        signed_at: Some(stamp.signed_at),
        ci_commit: stamp.commit.clone().or(fleet.meta.ci_commit),
        signature_algorithm: Some(key.algorithm().name().to_owned()),
    };
    fleet_source::drop_expired_pins(&mut fleet, stamp.signed_at, findings);
    // Readers normalise after verification: check the normalised form.
    let mut normalised = fleet.clone();
    normalised.normalise();
    check_fleet(&normalised, findings);
    refuse_edges_across_channels(&fleet, findings);
    Some((fleet, carried))
}

fn sign<T: Serialize>(document: &T, key: &SigningKey) -> Signed {
    let bytes = serde_json::to_vec(document)
        .ok()
        .and_then(|bytes| Some(canonicalize(&bytes).ok()?.into_owned()))
        .expect("a document that came from canonical JSON has a canonical form");
    let signature = key.sign(&bytes).to_vec();
    Signed { bytes, signature }
}

fn unreadable(message: impl Into<String>) -> AdmissionError {
    AdmissionError {
        faults: vec![Fault::Unreadable {
            message: message.into(),
        }],
        omitted: 0,
    }
}

#[cfg(test)]
mod tests;
