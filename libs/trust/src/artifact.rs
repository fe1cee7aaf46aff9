//! The kinds of signed artifacts.

use nixfleet_proto::Minutes;
use nixfleet_proto::fleet::{
    BootstrapNonces, Fleet, Meta, PolicyWave, Revocations, RolloutManifest, Selector,
};
use serde::de::DeserializeOwned;

/// The strategy that needs no waves.
pub const ALL_AT_ONCE: &str = "all-at-once";

mod sealed {
    /// Restricts [`super::Artifact`] to the types of this crate.
    pub trait Sealed {}
}

/// A document that the release key signs.
pub trait Artifact: DeserializeOwned + sealed::Sealed {
    /// Name of the kind, for messages.
    const KIND: &'static str;

    /// The top-level `schemaVersion`.
    fn schema_version(&self) -> u64;

    /// Signature data.
    fn meta(&self) -> &Meta;

    /// Fills in defaults that the format leaves to readers; does not change the signed bytes.
    fn normalise(&mut self) {}
}

impl<H> sealed::Sealed for Fleet<H> {}

impl<H: DeserializeOwned> Artifact for Fleet<H> {
    const KIND: &'static str = "fleet";

    fn schema_version(&self) -> u64 {
        self.schema_version
    }

    fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Adds one match-all wave without soak to a policy `all-at-once` without waves.
    fn normalise(&mut self) {
        for policy in self.rollout_policies.values_mut() {
            if policy.strategy == ALL_AT_ONCE && policy.waves.is_empty() {
                policy.waves.push(PolicyWave {
                    selector: Selector {
                        all: true,
                        ..Selector::default()
                    },
                    soak_minutes: Some(Minutes::ZERO),
                });
            }
        }
    }
}

macro_rules! artifact {
    ($artifact:ty, $kind:literal) => {
        impl sealed::Sealed for $artifact {}

        impl Artifact for $artifact {
            const KIND: &'static str = $kind;

            fn schema_version(&self) -> u64 {
                self.schema_version
            }

            fn meta(&self) -> &Meta {
                &self.meta
            }
        }
    };
}

artifact!(RolloutManifest, "rollout manifest");
artifact!(Revocations, "revocations");
artifact!(BootstrapNonces, "bootstrap nonces");
