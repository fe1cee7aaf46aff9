//! Selectors: the hosts of a wave or a budget.
//!
//! Source: docs/manifests.md, selectors.

use serde::{Deserialize, Serialize};

use super::FleetHost;
use crate::id::{ChannelName, Hostname};

/// Selects hosts; a host is selected when any rule matches.
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
