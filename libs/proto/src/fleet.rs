//! The signed artifacts: fleet, rollout manifest, revocations, bootstrap nonces.
//!
//! Readers ignore unknown keys; signatures cover the received bytes in canonical form, never a
//! re-serialised struct. Optional values are written as explicit `null` unless noted.
//!
//! Source: docs/manifests.md.

mod hosts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use hosts::{FleetHost, FleetHosts, NoHosts};

use crate::Timestamp;
use crate::id::{ChannelName, ChannelRef, ClosureHash, Hostname, ManifestHash, RolloutId};
use crate::minutes::Minutes;
use crate::rollout::OnHealthFailure;

/// The one schema version understood.
pub const SCHEMA_VERSION: u64 = 1;

/// `fleet.resolved.json`: hosts, channels, policies, waves, edges and budgets of one release. A reader
/// that needs no hosts reads them as [`NoHosts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct Fleet<H = FleetHosts> {
    pub schema_version: u64,
    pub hosts: H,
    pub channels: BTreeMap<ChannelName, Channel>,
    #[serde(default)]
    pub rollout_policies: BTreeMap<String, RolloutPolicy>,
    pub waves: BTreeMap<ChannelName, Vec<Wave>>,
    #[serde(default)]
    pub edges: Vec<HostEdge>,
    #[serde(default)]
    pub channel_edges: Vec<ChannelEdge>,
    #[serde(default)]
    pub disruption_budgets: Vec<DisruptionBudget>,
    pub meta: Meta,
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

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Channel {
    /// Key into `rolloutPolicies`.
    pub rollout_policy: String,
    /// Minutes; carried for other readers.
    pub reconcile_interval_minutes: u64,
    /// Minutes for which a manifest of this channel stays fresh.
    pub freshness_window: u64,
    /// Minutes between two signings; carried for other readers.
    pub signing_interval_minutes: u64,
}

/// How a channel rolls out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPolicy {
    /// `all-at-once` without waves means one match-all wave without soak.
    pub strategy: String,
    /// Selectors and soak minutes by wave index.
    #[serde(default)]
    pub waves: Vec<PolicyWave>,
    /// Carried, not interpreted.
    #[serde(default)]
    pub health_gate: serde_json::Map<String, serde_json::Value>,
    /// What a failing host does.
    pub on_health_failure: OnHealthFailure,
}

/// One wave of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyWave {
    /// Hosts of the wave.
    pub selector: Selector,
    /// Minutes of soak; absent is a fault at admission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_minutes: Option<Minutes>,
}

/// One resolved wave of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wave {
    /// Hostnames.
    pub hosts: Vec<Hostname>,
    /// Minutes; informational, the policy's value counts.
    pub soak_minutes: Minutes,
}

/// `gated` waits for `gates`, both hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the edge reads as its keys say")]
pub struct HostEdge {
    pub gated: Hostname,
    pub gates: Hostname,
    #[serde(default)]
    pub reason: Option<String>,
}

/// `gated` waits for `gates`, both channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the edge reads as its keys say")]
pub struct ChannelEdge {
    #[serde(alias = "before")]
    pub gates: ChannelName,
    #[serde(alias = "after")]
    pub gated: ChannelName,
    #[serde(default)]
    pub reason: Option<String>,
}

/// Limit on hosts in flight, as declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct DisruptionBudget {
    pub selector: Selector,
    #[serde(default)]
    pub max_in_flight: Option<u64>,
    /// Percent of the selected hosts.
    #[serde(default)]
    pub max_in_flight_pct: Option<u64>,
}

/// Limit on hosts in flight, with its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct ResolvedBudget {
    pub selector: Selector,
    /// Resolved over the whole fleet, sorted.
    pub hosts: Vec<Hostname>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight_pct: Option<u64>,
}

/// Which hosts something applies to; any rule that fires selects.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// All of these tags.
    pub tags: Vec<String>,
    /// At least one of these tags.
    pub tags_any: Vec<String>,
    /// These hosts.
    pub hosts: Vec<Hostname>,
    /// Every host of this channel.
    pub channel: Option<ChannelName>,
    /// Every host.
    pub all: bool,
    /// Hosts that all of these select.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub and: Vec<Selector>,
    /// Hosts that this does not select.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<Selector>>,
}

impl Selector {
    /// One-line text for reasons and labels.
    ///
    /// Source: docs/manifests.md, selectors.
    pub fn summary(&self) -> String {
        fn joined<T: AsRef<str>>(prefix: &str, items: &[T]) -> String {
            let mut items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
            items.sort_unstable();
            format!("{prefix}:{}", items.join(","))
        }
        if self.all {
            "all".to_owned()
        } else if let Some(channel) = &self.channel {
            format!("channel:{channel}")
        } else if !self.tags.is_empty() {
            joined("tags", &self.tags)
        } else if !self.tags_any.is_empty() {
            joined("tags_any", &self.tags_any)
        } else if !self.hosts.is_empty() {
            joined("hosts", &self.hosts)
        } else {
            "unknown".to_owned()
        }
    }

    /// True when any rule selects the host.
    pub fn matches(&self, hostname: &Hostname, host: &FleetHost) -> bool {
        self.all
            || self.hosts.contains(hostname)
            || self.channel.as_ref() == Some(&host.channel)
            || (!self.tags.is_empty() && self.tags.iter().all(|tag| host.tags.contains(tag)))
            || self.tags_any.iter().any(|tag| host.tags.contains(tag))
            || (!self.and.is_empty() && self.and.iter().all(|part| part.matches(hostname, host)))
            || self
                .not
                .as_ref()
                .is_some_and(|part| !part.matches(hostname, host))
    }
}

/// Who signed when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Always 1.
    pub schema_version: u64,
    /// `null`: unsigned, refused.
    pub signed_at: Option<Timestamp>,
    /// Source of the channel ref.
    pub ci_commit: Option<String>,
    /// Informational; the trusted key decides the algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_algorithm: Option<String>,
}

/// The rollout manifest of one channel in one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutManifest {
    /// Always 1.
    pub schema_version: u64,
    /// For people only.
    pub display_name: String,
    /// The channel.
    pub channel: ChannelName,
    /// The commit.
    pub channel_ref: ChannelRef,
    /// Hash of the fleet artifact this was projected from.
    pub fleet_resolved_hash: ManifestHash,
    /// Hosts, sorted by name.
    pub host_set: Vec<ManifestHost>,
    /// Copied from the policy.
    #[serde(default)]
    pub health_gate: serde_json::Map<String, serde_json::Value>,
    /// Resolved budgets.
    #[serde(default)]
    pub disruption_budgets: Vec<ResolvedBudget>,
    /// Signature data.
    pub meta: Meta,
}

impl RolloutManifest {
    /// The id rebuilt from the content.
    pub fn rollout_id(&self) -> RolloutId {
        RolloutId::new(&self.channel, &self.channel_ref)
    }
}

/// One host of a rollout manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestHost {
    /// Its name.
    pub hostname: Hostname,
    /// First wave that lists it, else 0.
    pub wave_index: u32,
    /// What it shall run.
    pub target_closure: ClosureHash,
}

/// Client certificates refused by issue date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct Revocations {
    pub schema_version: u64,
    pub revocations: Vec<Revocation>,
    pub meta: Meta,
}

/// One refused host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct Revocation {
    pub hostname: Hostname,
    /// Certificates issued earlier are refused.
    pub not_before: Timestamp,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub revoked_by: Option<String>,
}

/// Nonces that enrollment tokens may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct BootstrapNonces {
    pub schema_version: u64,
    pub bootstrap_nonces: Vec<BootstrapNonce>,
    pub meta: Meta,
}

/// One nonce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "docs/manifests.md gives each key")]
pub struct BootstrapNonce {
    pub nonce: String,
    pub hostname: Hostname,
    pub expires_at: Timestamp,
    #[serde(default)]
    pub minted_at: Option<Timestamp>,
    #[serde(default)]
    pub minted_by: Option<String>,
}

/// The announcement of one accepted release on `fleet.manifest.fleet`.
///
/// Bytes are in the object store under their hashes; signatures are small and travel here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseAnnouncement {
    /// Layout version.
    pub v: u32,
    /// The fleet artifact.
    pub fleet: ArtifactRef,
    /// One rollout manifest per channel with hosts, by channel.
    pub rollouts: BTreeMap<ChannelName, RolloutAnnouncement>,
}

impl ReleaseAnnouncement {
    /// Everything it names: the fleet, then the rollout manifests by channel.
    pub fn artifacts(&self) -> impl Iterator<Item = &ArtifactRef> {
        let rollouts = self.rollouts.values().map(|rollout| &rollout.artifact);
        std::iter::once(&self.fleet).chain(rollouts)
    }
}

/// The announcement of one rollout manifest on `fleet.manifest.rollout.<channel>.<ref>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutAnnouncement {
    /// Layout version.
    pub v: u32,
    /// Its identity.
    pub rollout_id: RolloutId,
    /// The artifact.
    pub artifact: ArtifactRef,
}

/// Where signed bytes are and what vouches for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactRef {
    /// SHA-256 of the canonical bytes; the object's name.
    pub hash: ManifestHash,
    /// Detached signature, standard base64.
    pub signature: String,
    /// Time of signing.
    pub signed_at: Timestamp,
}
