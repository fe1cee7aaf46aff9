//! Closures that the agent may make its host run.
//!
//! There are two ways to an [`AdmittedClosure`], and commands for the machine carry nothing else. A reply of
//! the control plane is none of them.

use nixfleet_proto::fleet::RolloutManifest;
use nixfleet_proto::{ClosureHash, Hostname, mutation_testing};
use nixfleet_trust::Verified;
use serde::{Deserialize, Serialize};

/// A closure that this host may be switched or rolled back to.
///
/// Its constructors are a verified manifest that lists this host, and what the agent saw running before a
/// dispatch that it followed. Nothing else makes one:
///
/// ```compile_fail
/// let closure = nixfleet_proto::ClosureHash::from("made up");
/// nixfleet_agent::AdmittedClosure { closure_hash: closure };
/// ```
///
/// ```compile_fail
/// let closure = nixfleet_proto::ClosureHash::from("made up");
/// nixfleet_agent::AdmittedClosure::from(&closure);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedClosure {
    closure_hash: ClosureHash,
}

/// A closure that this agent saw running on its machine.
///
/// The journal keeps it apart from the closures of records, which serve reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObservedClosure(ClosureHash);

impl AdmittedClosure {
    /// The closure.
    pub fn closure_hash(&self) -> &ClosureHash {
        &self.closure_hash
    }

    /// The target of a host and its wave; `None` when the manifest does not list the host.
    pub(crate) fn of_manifest(
        manifest: &Verified<RolloutManifest>,
        hostname: &Hostname,
    ) -> Option<(Self, u32)> {
        // The producer sorts hosts, but a signature does not prove that it did.
        let hosts = &manifest.payload().host_set;
        let any = mutation_testing::is_active("agent-ignores-host-set");
        let listed = hosts
            .iter()
            .find(|host| any || host.hostname == *hostname)?;
        let closure_hash = listed.target_closure.clone();
        Some((Self { closure_hash }, listed.wave_index))
    }
}

impl From<&ObservedClosure> for AdmittedClosure {
    fn from(observed: &ObservedClosure) -> Self {
        let closure_hash = observed.0.clone();
        Self { closure_hash }
    }
}

impl ObservedClosure {
    /// A closure that the machine under this agent reported.
    pub(crate) fn of_machine(closure: ClosureHash) -> Self {
        Self(closure)
    }

    /// The closure.
    pub fn closure_hash(&self) -> &ClosureHash {
        &self.0
    }
}
