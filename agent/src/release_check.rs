//! Checks of a signed release against the dispatch of one host.
//!
//! Signatures are the business of `nixfleet_trust`; a [`SignedRelease`] cannot be built without
//! them. Here the host compares: is it listed, is it this rollout, this target, recent enough.
//!
//! Source: docs/manifests.md, checks of the agent.

#![expect(missing_docs, reason = "most fields say what they are")]

use std::sync::Arc;

use chrono::TimeDelta;
use nixfleet_proto::fleet::{Fleet, RolloutManifest};
use nixfleet_proto::minutes::Minutes;
use nixfleet_proto::{
    ClosureHash, Hostname, OnHealthFailure, RolloutId, Timestamp, mutation_testing,
};
use nixfleet_trust::Verified;

use crate::admitted_closure::AdmittedClosure;
use crate::agent_memory::{AgentMemory, MemoryConflict, VerifiedManifest};

/// Tolerated clock difference.
const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(60);

/// A rollout manifest and the fleet it names, both with valid signatures.
#[derive(Clone)]
pub struct SignedRelease {
    pub manifest: Arc<Verified<RolloutManifest>>,
    pub fleet: Arc<Verified<Fleet>>,
}

impl std::fmt::Debug for SignedRelease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedRelease")
            .field("rollout_id", &self.manifest.payload().rollout_id())
            .field("signed_at", &self.manifest.signed_at())
            .finish_non_exhaustive()
    }
}

/// Expected properties of a release.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedRelease<'a> {
    pub hostname: &'a Hostname,
    pub rollout_id: &'a RolloutId,
    /// Of a dispatch or an acknowledged walk; a snapshot's closure is not taken.
    pub target_closure: Option<&'a ClosureHash>,
    pub walk: Walk<'a>,
}

/// Use of a release.
#[derive(Debug, Clone, Copy)]
pub enum Walk<'a> {
    /// A walk begins: the manifest must be recent, and not contradict what the agent remembers.
    Start {
        now: Timestamp,
        /// Oldest manifest it acts on.
        age_max: TimeDelta,
        memory: &'a AgentMemory,
    },
    /// An acknowledged walk goes on, or there is only something to report.
    Resume,
}

/// The parts of a release that concern one host, after all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The closure to switch to.
    pub target: AdmittedClosure,
    /// Soak of its wave.
    pub soak_minutes: Minutes,
    /// Policy for a failed host.
    pub on_health_failure: OnHealthFailure,
    /// Identity of the manifest.
    pub manifest: VerifiedManifest,
}

/// Reason for refusing a dispatch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another rollout's manifest.
    #[error("the manifest is of rollout {found}")]
    OtherRollout { found: RolloutId },
    /// The manifest names another fleet than the fetched one.
    #[error("the manifest names fleet {expected}, but the fetched fleet is {found}")]
    OtherFleet { expected: String, found: String },
    /// The host is not in the manifest.
    #[error("the manifest does not list this host")]
    NotListed,
    /// The dispatch or the acknowledged walk names another closure than the manifest.
    #[error("the manifest has target {expected}, but {found} was asked for")]
    OtherTarget {
        expected: ClosureHash,
        found: ClosureHash,
    },
    /// The manifest is too old to act on.
    #[error("the manifest is {age_seconds} s old")]
    TooOld { age_seconds: i64 },
    /// The agent remembers something else.
    #[error(transparent)]
    MemoryConflict(#[from] MemoryConflict),
    /// The fleet has no policy for the channel or no soak for the wave.
    #[error("the fleet has no rollout policy for channel {channel}, or no soak for its wave")]
    NoPolicy { channel: String },
}

impl Refusal {
    /// Kebab-case name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OtherRollout { .. } => "other-rollout",
            Self::OtherFleet { .. } => "other-fleet",
            Self::NotListed => "not-listed",
            Self::OtherTarget { .. } => "other-target",
            Self::TooOld { .. } => "too-old",
            Self::MemoryConflict(conflict) => conflict.name(),
            Self::NoPolicy { .. } => "no-policy",
        }
    }
}

impl SignedRelease {
    /// Checks the release against the dispatch.
    ///
    /// # Errors
    /// The first difference, in the order of [`Refusal`].
    pub fn admit(&self, asked: ExpectedRelease<'_>) -> Result<Admitted, Refusal> {
        let manifest = self.manifest.payload();
        let found = manifest.rollout_id();
        if found != *asked.rollout_id {
            return Err(Refusal::OtherRollout { found });
        }
        if manifest.fleet_resolved_hash != *self.fleet.hash() {
            return Err(Refusal::OtherFleet {
                expected: manifest.fleet_resolved_hash.to_string(),
                found: self.fleet.hash().to_string(),
            });
        }
        let (target, wave_index) = AdmittedClosure::of_manifest(&self.manifest, asked.hostname)
            .ok_or(Refusal::NotListed)?;
        let expected = target.closure_hash();
        if let Some(found) = asked.target_closure.filter(|found| *found != expected) {
            return Err(Refusal::OtherTarget {
                expected: expected.clone(),
                found: found.clone(),
            });
        }
        let identity = self.identity();
        match asked.walk {
            Walk::Start {
                now,
                age_max,
                memory,
            } => {
                check_age(now - identity.signed_at, age_max)?;
                memory.check(&identity, expected)?;
            }
            Walk::Resume => {}
        }
        let (on_health_failure, soak_minutes) = self.policy_of(wave_index)?;
        Ok(Admitted {
            target,
            soak_minutes,
            on_health_failure,
            manifest: identity,
        })
    }

    fn identity(&self) -> VerifiedManifest {
        VerifiedManifest {
            rollout_id: self.manifest.payload().rollout_id(),
            signed_at: self.manifest.signed_at(),
            content_hash: self.manifest.content_hash().clone(),
        }
    }

    fn policy_of(&self, wave_index: u32) -> Result<(OnHealthFailure, Minutes), Refusal> {
        let channel = &self.manifest.payload().channel;
        let fleet = self.fleet.payload();
        let refusal = || Refusal::NoPolicy {
            channel: channel.to_string(),
        };
        let policy = fleet
            .channels
            .get(channel)
            .and_then(|entry| fleet.rollout_policies.get(&entry.rollout_policy))
            .ok_or_else(refusal)?;
        let soak = policy
            .waves
            .get(wave_index as usize)
            .and_then(|wave| wave.soak_minutes)
            .ok_or_else(refusal)?;
        Ok((policy.on_health_failure, soak))
    }
}

fn check_age(age: TimeDelta, age_max: TimeDelta) -> Result<(), Refusal> {
    if age > age_max + CLOCK_SLACK && !mutation_testing::is_active("agent-ignores-age") {
        let age_seconds = age.num_seconds();
        return Err(Refusal::TooOld { age_seconds });
    }
    Ok(())
}
