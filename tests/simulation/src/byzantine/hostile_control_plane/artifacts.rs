//! Artifacts: genuine ones, the wrong ones, and changed ones.

use std::sync::LazyLock;

use nixfleet_proto::{ClosureHash, Hostname, RolloutId};
use nixfleet_trust::Algorithm;
use nixfleet_trust::release_bundle::Signed;
use nixfleet_trust::sign::SigningKey;
use serde_json::Value;

use super::{HostileControlPlane, false_values};
use crate::byzantine::answer::{Answer, Artifacts};
use crate::byzantine::coverage::Falsehood;
use crate::byzantine::genuine_releases::{AnswerContext, GenuineRelease};

/// A key that no agent trusts.
static FOREIGN_KEY: LazyLock<SigningKey> = LazyLock::new(|| {
    SigningKey::from_secret(Algorithm::Ed25519, &[9; 32]).expect("any 32 bytes are a secret key")
});

impl HostileControlPlane {
    /// Answers a request for the artifacts of a rollout.
    pub fn artifacts(
        &mut self,
        host: &Hostname,
        rollout_id: &RolloutId,
        at: AnswerContext<'_>,
    ) -> Answer<Artifacts> {
        let releases = at.releases();
        let genuine = releases.iter().rev().find_map(|r| r.artifacts(rollout_id));
        let is_false = self.is_false();
        let served = match genuine {
            Some(genuine) if !is_false => Some(genuine),
            Some(genuine) => self.false_artifacts(host, rollout_id, genuine, at),
            // Nobody signed it; anything else may do.
            None => self.other_rollout(releases),
        };
        match served {
            Some(artifacts) => self.answer(artifacts),
            None => {
                self.tell(Falsehood::ArtifactWithheld);
                Answer::after_millis(30, None)
            }
        }
    }

    fn false_artifacts(
        &mut self,
        host: &Hostname,
        rollout_id: &RolloutId,
        genuine: Artifacts,
        at: AnswerContext<'_>,
    ) -> Option<Artifacts> {
        let releases = at.releases();
        let mut artifacts = genuine;
        let falsehood = match self.rng.below(16) {
            0..=2 => {
                let first = releases.iter().find_map(|r| r.artifacts(rollout_id));
                artifacts = first.unwrap_or(artifacts);
                Falsehood::OldSigning
            }
            3..=5 => return self.other_rollout(releases),
            6 => {
                artifacts.fleet = self.rng.pick(releases).release.bundle.fleet.clone();
                Falsehood::OtherFleet
            }
            7 => {
                let other = self.other_rollout(releases)?;
                artifacts.manifest.signature = other.manifest.signature;
                Falsehood::SignatureOfOther
            }
            8..=9 => {
                let closure = false_values::closure(&mut self.rng, host, at);
                change_closure(&mut artifacts.manifest, host, &closure);
                Falsehood::ClosureChanged
            }
            10 => {
                change_time(&mut artifacts.manifest, at);
                Falsehood::TimeChanged
            }
            11 => {
                let bytes = &mut artifacts.manifest.bytes;
                let place = self.rng.index(bytes.len());
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << self.rng.below(8);
                }
                Falsehood::BytesDamaged
            }
            12 => {
                artifacts.manifest.bytes.extend_from_slice(b" \n\t");
                Falsehood::BytesRewritten
            }
            13..=14 => {
                let closure = false_values::closure(&mut self.rng, host, at);
                change_closure(&mut artifacts.manifest, host, &closure);
                sign_again(&mut artifacts.manifest);
                sign_again(&mut artifacts.fleet);
                Falsehood::ForeignKey
            }
            _ => return None,
        };
        self.tell(falsehood);
        Some(artifacts)
    }

    fn other_rollout(&mut self, releases: &[GenuineRelease]) -> Option<Artifacts> {
        let all = releases.iter().flat_map(|release| {
            let rollouts = release.release.rollouts.values();
            rollouts.map(move |rollout_id| (release, rollout_id))
        });
        let all: Vec<_> = all.collect();
        if all.is_empty() {
            return None;
        }
        self.tell(Falsehood::ManifestOfOtherRollout);
        let (release, rollout_id) = *self.rng.pick(&all);
        release.artifacts(rollout_id)
    }
}

/// Changes the target of a host and nothing else.
fn change_closure(manifest: &mut Signed, host: &Hostname, closure: &ClosureHash) {
    change_json(manifest, |document| {
        let hosts = document.get_mut("hostSet").and_then(Value::as_array_mut);
        for entry in hosts.into_iter().flatten() {
            if entry.get("hostname").and_then(Value::as_str) == Some(host.as_str()) {
                entry["targetClosure"] = Value::from(closure.as_str());
            }
        }
    });
}

fn change_time(manifest: &mut Signed, at: AnswerContext<'_>) {
    let now = serde_json::to_value(at.wall()).unwrap_or_default();
    change_json(manifest, |document| document["meta"]["signedAt"] = now);
}

fn change_json(manifest: &mut Signed, change: impl FnOnce(&mut Value)) {
    if let Ok(mut document) = serde_json::from_slice::<Value>(&manifest.bytes) {
        change(&mut document);
        manifest.bytes = document.to_string().into_bytes();
    }
}

fn sign_again(artifact: &mut Signed) {
    if let Ok((bytes, signature)) = FOREIGN_KEY.sign_json(&artifact.bytes) {
        *artifact = Signed {
            bytes,
            signature: signature.to_vec(),
        };
    }
}
