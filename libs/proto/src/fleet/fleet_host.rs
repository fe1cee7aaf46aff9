//! The hosts of a fleet.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Timestamp;
use crate::id::{ChannelName, ClosureHash, Hostname};

/// The hosts of a fleet by name.
pub type FleetHosts = BTreeMap<Hostname, FleetHost>;

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct FleetHost {
    pub system: String,
    #[serde(deserialize_with = "without_spare_capacity")]
    pub tags: Vec<String>,
    pub channel: ChannelName,
    /// `null`: not part of any rollout.
    pub closure_hash: Option<ClosureHash>,
    pub pubkey: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Box<Pin>>,
}

/// A host held on a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct Pin {
    pub commit: String,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// The hosts of a fleet, validated like [`FleetHosts`] and dropped: a million hosts take hundreds of
/// megabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedHosts;

impl<'de> Deserialize<'de> for SkippedHosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for SkippedHosts {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut hosts: A) -> Result<Self, A::Error> {
        while hosts.next_entry::<Hostname, FleetHost>()?.is_some() {}
        Ok(self)
    }
}

/// A list without spare capacity: serde allocates for four items, and most hosts have one or two tags.
fn without_spare_capacity<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let mut list = Vec::<String>::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}
