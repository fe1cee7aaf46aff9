//! The hosts of a release by name, for a lookup per event.

use std::collections::HashMap;

use nixfleet_proto::fleet::Fleet;
use nixfleet_proto::{ChannelName, Hostname};

/// The channel of every host of a release. The fleet itself is ordered: with a million hosts a lookup there
/// costs many times as much.
#[derive(Debug, Default)]
pub struct HostChannels {
    channels: Vec<ChannelName>,
    /// Positions in `channels`.
    hosts: HashMap<Hostname, u32>,
}

impl HostChannels {
    /// The hosts of a fleet.
    pub fn of(fleet: &Fleet) -> Self {
        let channels: Vec<ChannelName> = fleet.channels.keys().cloned().collect();
        let place = |channel| {
            let place = channels.binary_search(channel).ok()?;
            u32::try_from(place).ok()
        };
        let hosts = fleet.hosts.iter();
        let hosts = hosts.filter_map(|(name, host)| Some((name.clone(), place(&host.channel)?)));
        Self {
            hosts: hosts.collect(),
            channels,
        }
    }

    /// The channel of a host; `None` when the release does not name the host.
    pub fn channel_of(&self, hostname: &str) -> Option<&ChannelName> {
        let place = self.hosts.get(hostname)?;
        self.channels.get(*place as usize)
    }
}
