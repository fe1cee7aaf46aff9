//! The machines of a fleet, and how they are read.

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
    #[serde(deserialize_with = "without_room")]
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

/// The hosts of a fleet, refused where [`FleetHosts`] are and not kept: a million take hundreds of
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

/// A list as long as it is: a reader leaves room for four, and most hosts have a tag or two.
fn without_room<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let mut list = Vec::<String>::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}
