//! Faults and notices of a release.

use nixfleet_proto::{ChannelName, Hostname, HostnameError, Minutes, RolloutId, Timestamp};
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// Most faults and most notices in a result; further ones are counted.
pub const FAULTS_MAX: usize = 1000;

/// One reason to reject a release. `at` is the location in the document, as a path of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message uses every field")]
pub enum Fault {
    #[error("the fleet source cannot be read: {message}")]
    Unreadable { message: String },
    /// Ignoring a key would drop a rule.
    #[error("{at}: unknown key {key:?}{}", nearest.map(|key| format!(", did you mean {key:?}?")).unwrap_or_default())]
    UnknownKey {
        at: String,
        key: String,
        nearest: Option<&'static str>,
    },
    #[error("{at}: schema version {version} is unknown, 1 is expected")]
    SchemaVersion { at: String, version: u64 },
    #[error("{at}: there is no channel {channel:?}")]
    UnknownChannel { at: String, channel: ChannelName },
    #[error("{at}: there is no rollout policy {policy:?}")]
    UnknownPolicy { at: String, policy: String },
    #[error("{at}: there is no host {hostname:?}")]
    UnknownHost { at: String, hostname: Hostname },
    #[error(
        "{at}: {gated} would wait for {gates} of another channel; channelEdges order channels, edges the hosts of one"
    )]
    EdgeAcrossChannels {
        at: String,
        gated: Hostname,
        gates: Hostname,
    },
    #[error("{at}: the soak minutes are missing")]
    SoakMissing { at: String },
    #[error("{at}: a soak of {soak} is longer than a year")]
    SoakTooLong { at: String, soak: Minutes },
    #[error("{at}: {minutes} minutes are longer than ten years")]
    FreshnessTooLong { at: String, minutes: u64 },
    #[error("{at}: {count} waves are more than the {max} allowed")]
    TooManyWaves {
        at: String,
        count: usize,
        max: usize,
    },
    #[error("{at}: a cycle without a first one: {}", path.join(" waits for "))]
    Cycle { at: String, path: Vec<String> },
    #[error("meta.ciCommit: channel {channel} has hosts, so a commit is needed")]
    RefMissing { channel: ChannelName },
    #[error("meta.ciCommit: {reference:?} is not lower-case hexadecimal")]
    RefIllegal { reference: String },
    #[error("{at}: {name:?} {reason}")]
    NameIllegal {
        at: String,
        name: String,
        reason: &'static str,
    },
    #[error("hosts: {0}")]
    Hostname(HostnameError),
    #[error("hosts: no host has a closure, there is nothing to roll out")]
    SkippedHosts,
    #[error("rollout manifest of {channel}: its host set is not the one of the fleet")]
    HostSetDiffers { channel: ChannelName },
    #[error("{artifact} was accepted with other content: publish a new commit")]
    RefReused { artifact: String },
    #[error("rollout {rollout_id} was superseded before: publish a new commit")]
    Superseded { rollout_id: RolloutId },
    #[error("signed at {signed_at}, the accepted release at {accepted}")]
    Older {
        signed_at: Timestamp,
        accepted: Timestamp,
    },
}

impl Fault {
    /// Name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "unreadable",
            Self::UnknownKey { .. } => "unknown-key",
            Self::SchemaVersion { .. } => "schema-version",
            Self::UnknownChannel { .. } => "unknown-channel",
            Self::UnknownPolicy { .. } => "unknown-policy",
            Self::UnknownHost { .. } => "unknown-host",
            Self::EdgeAcrossChannels { .. } => "edge-across-channels",
            Self::SoakMissing { .. } => "soak-missing",
            Self::SoakTooLong { .. } => "soak-too-long",
            Self::FreshnessTooLong { .. } => "freshness-too-long",
            Self::TooManyWaves { .. } => "too-many-waves",
            Self::Cycle { .. } => "cycle",
            Self::RefMissing { .. } => "ref-missing",
            Self::RefIllegal { .. } => "ref-illegal",
            Self::NameIllegal { .. } | Self::Hostname(_) => "name-illegal",
            Self::SkippedHosts => "no-hosts",
            Self::HostSetDiffers { .. } => "host-set-differs",
            Self::RefReused { .. } => "ref-reused",
            Self::Superseded { .. } => "superseded",
            Self::Older { .. } => "older",
        }
    }
}

/// A finding that rejects nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message uses every field")]
pub enum Notice {
    #[error("{at}: {hostname} is a host of channel {channel}")]
    WaveHostElsewhere {
        at: String,
        hostname: Hostname,
        channel: ChannelName,
    },
    #[error("{at}: {hostname} has no closure")]
    WaveHostWithoutClosure { at: String, hostname: Hostname },
    #[error("hosts.{hostname}: no wave of channel {channel} lists it, so it is never dispatched")]
    HostUnstaged {
        hostname: Hostname,
        channel: ChannelName,
    },
    #[error("{at}: {gated} is never dispatched, since {gates} is of another channel")]
    EdgeAcrossChannels {
        at: String,
        gated: Hostname,
        gates: Hostname,
    },
    #[error("{at}: selects no host")]
    EmptySelection { at: String },
    #[error("rollout manifest of {channel}: its budgets are not the ones of the fleet")]
    BudgetsDiffer { channel: ChannelName },
    #[error("hosts.{hostname}.pin: expired, left out")]
    PinExpired { hostname: Hostname },
    #[error("and {count} more")]
    Omitted { count: usize },
}

impl Notice {
    /// Name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WaveHostElsewhere { .. } => "wave-host-elsewhere",
            Self::WaveHostWithoutClosure { .. } => "wave-host-without-closure",
            Self::HostUnstaged { .. } => "host-unstaged",
            Self::EdgeAcrossChannels { .. } => "edge-across-channels",
            Self::EmptySelection { .. } => "empty-selection",
            Self::BudgetsDiffer { .. } => "budgets-differ",
            Self::PinExpired { .. } => "pin-expired",
            Self::Omitted { .. } => "omitted",
        }
    }
}

impl Serialize for Fault {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_finding(self.name(), self, serializer)
    }
}

impl Serialize for Notice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_finding(self.name(), self, serializer)
    }
}

fn serialize_finding<S: Serializer>(
    code: &str,
    finding: &impl ToString,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_struct("Finding", 2)?;
    object.serialize_field("code", code)?;
    object.serialize_field("message", &finding.to_string())?;
    object.end()
}

/// Rejection of a release, with its faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionError {
    /// Faults, at most [`FAULTS_MAX`].
    pub faults: Vec<Fault>,
    /// Number of further faults.
    pub omitted: usize,
}

impl std::fmt::Display for AdmissionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.faults.len() + self.omitted;
        write!(
            f,
            "the release has {count} fault{}",
            if count == 1 { "" } else { "s" }
        )?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n  and {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for AdmissionError {}

/// Collects faults and notices up to [`FAULTS_MAX`].
#[derive(Debug, Default)]
pub struct Findings {
    faults: Vec<Fault>,
    faults_omitted: usize,
    notices: Vec<Notice>,
    notices_omitted: usize,
}

impl Findings {
    /// Adds a fault.
    pub fn fault(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        } else {
            self.faults_omitted += 1;
        }
    }

    /// Adds a notice.
    pub fn notice(&mut self, notice: Notice) {
        if self.notices.len() < FAULTS_MAX {
            self.notices.push(notice);
        } else {
            self.notices_omitted += 1;
        }
    }

    /// True when there is no fault so far.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The notices, without faults.
    pub fn into_result(mut self) -> Result<Vec<Notice>, AdmissionError> {
        if !self.faults.is_empty() {
            return Err(AdmissionError {
                faults: self.faults,
                omitted: self.faults_omitted,
            });
        }
        if self.notices_omitted > 0 {
            self.notices.push(Notice::Omitted {
                count: self.notices_omitted,
            });
        }
        Ok(self.notices)
    }
}
