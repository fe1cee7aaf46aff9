//! The signed artifacts: fleet, rollout manifest, revocations, bootstrap nonces.
//!
//! Readers ignore unknown keys; signatures cover the received bytes in canonical form, never a
//! re-serialised struct. Optional values are written as explicit `null` unless noted.
//!
//! Source: docs/manifests.md.

mod announcement;
mod fleet_host;
mod revocation;
mod selector;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use announcement::{ArtifactRef, ReleaseAnnouncement, RolloutAnnouncement};
pub use fleet_host::{FleetHost, FleetHosts, Pin, SkippedHosts};
pub use revocation::{CLIENT_NAME_BYTES_MAX, Revocation, RevokedClient, is_client_name};
pub use selector::Selector;

use crate::Timestamp;
use crate::id::{ChannelName, ChannelRef, ClosureHash, Hostname, ManifestHash, RolloutId};
use crate::minutes::Minutes;
use crate::on_health_failure::OnHealthFailure;

/// The only supported schema version.
pub const SCHEMA_VERSION: u64 = 1;

/// `fleet.resolved.json`: hosts, channels, policies, waves, edges and budgets of one release. A reader
/// without need of the hosts reads them as [`SkippedHosts`].
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
    /// Policy for failing hosts.
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

/// Signature data.
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
    /// The closure to run.
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
