//! The last check before a closure reaches the machine.
//!
//! The core decides; the shell passes a command on only if its closure is in what the shell itself holds: for a
//! switch, a manifest that the shell saw verified for this host, for a rollback, what the machine told the
//! shell it ran before a switch of that rollout. A fault in the core's rules then stops the host instead of
//! moving it.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_proto::{ClosureHash, Hostname, RolloutId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::admitted_closure::AdmittedClosure;
use crate::release_check::SignedRelease;

/// Verified targets that are kept; the core has fewer manifests waiting at a time.
const TARGETS_MAX: usize = 64;

/// What the shell holds about the closures of one host.
#[derive(Debug)]
pub struct ActivationGuard {
    hostname: Hostname,
    /// By the time of signing: old manifests, which anyone may send again, push out older ones only.
    targets: BTreeSet<(Timestamp, RolloutId, ClosureHash)>,
    observations: ObservedClosures,
}

/// What the machine ran before the switches of each rollout. The durable part of the guard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObservedClosures(BTreeMap<RolloutId, BTreeSet<ClosureHash>>);

/// A command names a closure that the shell has no proof of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the agent's shell has no proof of {closure} for {rollout_id}; this is a fault of the agent"
)]
#[expect(missing_docs, reason = "the message says the same")]
pub struct UnverifiedClosure {
    pub rollout_id: RolloutId,
    pub closure: ClosureHash,
}

impl ActivationGuard {
    /// A guard with the observations of earlier processes.
    pub fn new(hostname: Hostname, observations: ObservedClosures) -> Self {
        Self {
            hostname,
            targets: BTreeSet::new(),
            observations,
        }
    }

    /// Takes the target of this host from a verified manifest.
    pub fn take_release(&mut self, release: &SignedRelease) {
        let manifest = &release.manifest;
        let Some((target, _)) = AdmittedClosure::of_manifest(manifest, &self.hostname) else {
            return;
        };
        let rollout_id = manifest.payload().rollout_id();
        let closure = target.closure_hash().clone();
        self.targets
            .insert((manifest.signed_at(), rollout_id, closure));
        if self.targets.len() > TARGETS_MAX {
            self.targets.pop_first();
        }
    }

    /// Checks a switch.
    ///
    /// # Errors
    /// No verified manifest of the rollout has this closure for this host.
    pub fn check_switch(
        &self,
        rollout_id: &RolloutId,
        closure: &ClosureHash,
    ) -> Result<(), UnverifiedClosure> {
        let mut targets = self.targets.iter();
        let proven = targets.any(|(_, id, target)| id == rollout_id && target == closure);
        proven
            .then_some(())
            .ok_or_else(|| unverified(rollout_id, closure))
    }

    /// Notes what the machine runs before a switch to `target`; true when the observations have to be saved.
    pub fn observe_before(
        &mut self,
        rollout_id: &RolloutId,
        target: &ClosureHash,
        running: &ClosureHash,
    ) -> bool {
        running != target
            && self
                .observations
                .0
                .entry(rollout_id.clone())
                .or_default()
                .insert(running.clone())
    }

    /// Checks a rollback.
    ///
    /// # Errors
    /// The machine did not run this closure before a switch of the rollout.
    pub fn check_rollback(
        &self,
        rollout_id: &RolloutId,
        closure: &ClosureHash,
    ) -> Result<(), UnverifiedClosure> {
        let observed = self.observations.0.get(rollout_id);
        let proven = observed.is_some_and(|observed| observed.contains(closure));
        proven
            .then_some(())
            .ok_or_else(|| unverified(rollout_id, closure))
    }

    /// Drops the observations of a rollout; true when they have to be saved.
    pub fn forget(&mut self, rollout_id: &RolloutId) -> bool {
        self.observations.0.remove(rollout_id).is_some()
    }

    /// The observations, to be made durable.
    pub fn observations(&self) -> &ObservedClosures {
        &self.observations
    }
}

fn unverified(rollout_id: &RolloutId, closure: &ClosureHash) -> UnverifiedClosure {
    UnverifiedClosure {
        rollout_id: rollout_id.clone(),
        closure: closure.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tests::test_agent::{release, release_for, rollout};

    #[test]
    fn a_switch_needs_the_manifest_of_its_rollout_and_host() {
        let mut guard = ActivationGuard::new("web-01".into(), ObservedClosures::default());
        assert!(guard.check_switch(&rollout("1"), &"b".into()).is_err());
        guard.take_release(&release("1", "b", 0));
        guard.take_release(&release_for("web-02", "2", "c", 0));
        guard.check_switch(&rollout("1"), &"b".into()).unwrap();
        for (target_ref, closure) in [("1", "c"), ("2", "b"), ("2", "c"), ("1", "a")] {
            let checked = guard.check_switch(&rollout(target_ref), &closure.into());
            assert!(checked.is_err(), "{target_ref} {closure}");
        }
    }

    #[test]
    fn a_rollback_needs_what_ran_before_the_switch_also_after_a_restart() {
        let mut guard = ActivationGuard::new("web-01".into(), ObservedClosures::default());
        assert!(guard.observe_before(&rollout("1"), &"b".into(), &"a".into()));
        assert!(!guard.observe_before(&rollout("1"), &"b".into(), &"b".into()));
        let saved = serde_json::to_string(guard.observations()).unwrap();
        let mut guard =
            ActivationGuard::new("web-01".into(), serde_json::from_str(&saved).unwrap());
        guard.check_rollback(&rollout("1"), &"a".into()).unwrap();
        for (target_ref, closure) in [("1", "b"), ("1", "old"), ("2", "a")] {
            let checked = guard.check_rollback(&rollout(target_ref), &closure.into());
            assert!(checked.is_err(), "{target_ref} {closure}");
        }
        assert!(guard.forget(&rollout("1")));
        assert!(guard.check_rollback(&rollout("1"), &"a".into()).is_err());
    }
}
