//! What an agent remembers besides its rollouts: the newest manifests it verified, and closures that failed.
//!
//! A manifest stays validly signed for its whole window. Whoever answers the agent could offer an older one
//! that lists this host, so the agent follows none that is older than what it verified before.
//!
//! Source: docs/manifests.md, checks of the agent.

use std::collections::BTreeMap;

use nixfleet_proto::{
    ChannelName, ClosureHash, ManifestHash, RolloutId, Timestamp, mutation_testing,
};
use serde::{Deserialize, Serialize};

/// Remembered channels and closures; the oldest are forgotten first.
const ITEMS_MAX: usize = 32;
/// Walks of one rollout that may fail on this host: a control plane that lost the reports offers it again.
const FAILED_WALKS_MAX: u32 = 3;

/// The durable memory of one agent. Readers ignore keys that they do not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentMemory {
    /// The newest verified manifest of each channel that lists this host.
    #[serde(default)]
    newest: BTreeMap<ChannelName, VerifiedManifest>,
    /// Closures that failed here or were rolled back, and have not converged since.
    #[serde(default)]
    failed: BTreeMap<ClosureHash, FailedClosure>,
}

/// Identity of a verified manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedManifest {
    /// Its rollout.
    pub rollout_id: RolloutId,
    /// Time of signing.
    pub signed_at: Timestamp,
    /// Hash of the content, which a renewed signature does not change.
    pub content_hash: ManifestHash,
}

/// The last failure of a closure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailedClosure {
    rollout_id: RolloutId,
    signed_at: Timestamp,
    walks: u32,
}

/// A manifest contradicts what the agent remembers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum MemoryConflict {
    #[error("a manifest signed at {newest} was already verified")]
    Outdated { newest: Timestamp },
    #[error("another content was already verified for {rollout_id}: publish a new commit")]
    OtherContent { rollout_id: RolloutId },
    #[error("{closure} failed here {walks} times in {rollout_id}: publish a new commit")]
    FailedHere {
        closure: ClosureHash,
        rollout_id: RolloutId,
        walks: u32,
    },
}

impl MemoryConflict {
    /// Kebab-case name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Outdated { .. } => "outdated",
            Self::OtherContent { .. } => "other-content",
            Self::FailedHere { .. } => "failed-here",
        }
    }
}

impl AgentMemory {
    /// Checks a manifest and the closure that it has for this host, before a walk begins.
    ///
    /// # Errors
    /// The first contradiction, in the order of [`MemoryConflict`].
    pub fn check(
        &self,
        manifest: &VerifiedManifest,
        target: &ClosureHash,
    ) -> Result<(), MemoryConflict> {
        let rollout_id = &manifest.rollout_id;
        let (same, others): (Vec<_>, Vec<_>) = self
            .newest
            .values()
            .partition(|known| known.rollout_id == *rollout_id);
        let newest = others.iter().map(|known| known.signed_at).max();
        let newest = newest.filter(|_| !mutation_testing::is_active("agent-ignores-newer"));
        if let Some(newest) = newest.filter(|newest| *newest > manifest.signed_at) {
            return Err(MemoryConflict::Outdated { newest });
        }
        if same
            .iter()
            .any(|known| known.content_hash != manifest.content_hash)
        {
            let rollout_id = rollout_id.clone();
            return Err(MemoryConflict::OtherContent { rollout_id });
        }
        match self.failed.get(target) {
            Some(failed) if failed.refuses(manifest) => Err(MemoryConflict::FailedHere {
                closure: target.clone(),
                rollout_id: failed.rollout_id.clone(),
                walks: failed.walks,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Remembers a manifest that passed [`Self::check`]; true when that changed the memory.
    pub(crate) fn remember_manifest(&mut self, manifest: &VerifiedManifest) -> bool {
        let channel = manifest.rollout_id.channel();
        let known = self.newest.get(&channel);
        if known.is_some_and(|known| known.signed_at >= manifest.signed_at) {
            return false;
        }
        self.newest.insert(channel, manifest.clone());
        drop_oldest(&mut self.newest, |known| known.signed_at);
        true
    }

    /// Remembers that a closure failed on this host.
    pub(crate) fn remember_failure(
        &mut self,
        closure: &ClosureHash,
        rollout_id: &RolloutId,
        signed_at: Timestamp,
    ) {
        let known = self.failed.get(closure);
        let before = known.filter(|known| known.rollout_id == *rollout_id);
        let failed = FailedClosure {
            rollout_id: rollout_id.clone(),
            signed_at,
            walks: before.map_or(0, |known| known.walks).saturating_add(1),
        };
        self.failed.insert(closure.clone(), failed);
        drop_oldest(&mut self.failed, |known| known.signed_at);
    }

    /// Forgets the failures of a closure that converged; true when there were some.
    pub(crate) fn forget_failures(&mut self, closure: &ClosureHash) -> bool {
        self.failed.remove(closure).is_some()
    }
}

impl FailedClosure {
    /// A newer release may name the closure again, and its own rollout may be repeated a few times.
    fn refuses(&self, manifest: &VerifiedManifest) -> bool {
        if self.rollout_id == manifest.rollout_id {
            self.walks >= FAILED_WALKS_MAX
        } else {
            manifest.signed_at <= self.signed_at
        }
    }
}

fn drop_oldest<K: Ord + Clone, V>(items: &mut BTreeMap<K, V>, signed_at: impl Fn(&V) -> Timestamp) {
    while items.len() > ITEMS_MAX {
        let oldest = items.iter().min_by_key(|(_, item)| signed_at(item));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else {
            return;
        };
        items.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn manifest(rollout: &str, seconds: i64, content: &str) -> VerifiedManifest {
        VerifiedManifest {
            rollout_id: rollout.parse().unwrap(),
            signed_at: at(seconds),
            content_hash: ManifestHash::from(content),
        }
    }

    fn refusal(memory: &AgentMemory, manifest: &VerifiedManifest, target: &str) -> &'static str {
        let result = memory.check(manifest, &target.into());
        result.err().map_or("ok", |refused| refused.name())
    }

    #[test]
    fn an_older_manifest_is_refused_also_of_another_channel() {
        let mut memory = AgentMemory::default();
        assert!(memory.remember_manifest(&manifest("stable@1", 10, "x")));
        assert!(memory.remember_manifest(&manifest("edge@2", 20, "y")));
        for (offered, expected) in [
            (manifest("stable@1", 10, "x"), "outdated"),
            (manifest("stable@0", 19, "w"), "outdated"),
            (manifest("edge@3", 20, "z"), "ok"),
            (manifest("edge@2", 15, "y"), "ok"),
            (manifest("edge@2", 30, "y"), "ok"),
            (manifest("edge@2", 30, "z"), "other-content"),
        ] {
            assert_eq!(refusal(&memory, &offered, "b"), expected, "{offered:?}");
        }
        assert!(!memory.remember_manifest(&manifest("edge@2", 5, "y")));
    }

    #[test]
    fn a_failed_closure_needs_a_newer_release() {
        let mut memory = AgentMemory::default();
        let first = manifest("stable@1", 10, "x");
        for expected in ["ok", "ok", "failed-here"] {
            memory.remember_failure(&"b".into(), &first.rollout_id, first.signed_at);
            assert_eq!(refusal(&memory, &first, "b"), expected);
            assert_eq!(refusal(&memory, &first, "c"), "ok");
        }
        assert_eq!(
            refusal(&memory, &manifest("stable@2", 10, "y"), "b"),
            "failed-here"
        );
        assert_eq!(refusal(&memory, &manifest("stable@2", 11, "y"), "b"), "ok");
        assert!(memory.forget_failures(&"b".into()));
        assert_eq!(refusal(&memory, &first, "b"), "ok");
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_the_newest() {
        let mut memory = AgentMemory::default();
        for number in 0..100_i64 {
            let manifest = manifest(&format!("c{number}@1"), number, "x");
            memory.remember_manifest(&manifest);
            let closure = format!("{number}").into();
            memory.remember_failure(&closure, &manifest.rollout_id, manifest.signed_at);
        }
        assert_eq!(
            (memory.newest.len(), memory.failed.len()),
            (ITEMS_MAX, ITEMS_MAX)
        );
        assert_eq!(refusal(&memory, &manifest("d@1", 98, "x"), "b"), "outdated");
        let text = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<AgentMemory>(&text).unwrap(), memory);
        let later = r#"{"newest":{},"failed":{},"checkpoints":[1]}"#;
        assert_eq!(
            serde_json::from_str::<AgentMemory>(later).unwrap(),
            AgentMemory::default()
        );
    }
}
