//! Hosts in channels of three waves that do not soak.

use nixfleet_proto::{ClosureHash, Hostname};
use serde_json::{Map, Value, json};

/// Hosts of the first two waves of each channel.
const CANARIES: [usize; 2] = [2, 6];

/// Channels with their numbers of hosts.
pub type Channels = &'static [(&'static str, usize)];

/// Every host with its channel.
pub fn hosts(channels: Channels) -> Vec<(Hostname, &'static str)> {
    let of_channel = |(channel, count): &(&'static str, usize)| {
        let channel = *channel;
        (0..*count).map(move |number| (hostname(channel, number), channel))
    };
    channels.iter().flat_map(of_channel).collect()
}

pub fn hostname(channel: &str, number: usize) -> Hostname {
    format!("{channel}-{number:02}")
        .parse::<Hostname>()
        .unwrap()
}

/// The closure of a host in a release.
pub fn closure(hostname: &Hostname, commit: &str) -> ClosureHash {
    ClosureHash::from(format!("{hostname}-{commit}-nixos-system"))
}

/// The source of the release of a commit.
pub fn source(channels: Channels, commit: &str) -> Value {
    let mut hosts = Map::new();
    for (channel, count) in channels {
        for number in 0..*count {
            let hostname = hostname(channel, number);
            let host = json!({
                "system": "x86_64-linux",
                "tags": [wave(number)],
                "channel": channel,
                "closureHash": closure(&hostname, commit),
                "pubkey": null,
            });
            hosts.insert(hostname.to_string(), host);
        }
    }
    let channel = json!({
        "rolloutPolicy": "waves",
        "reconcileIntervalMinutes": 30,
        "freshnessWindow": 1440,
        "signingIntervalMinutes": 30,
    });
    let names = channels.iter().map(|(name, _)| (*name).to_owned());
    let waves = ["first", "second", "rest"]
        .map(|tag| json!({ "selector": { "tags": [tag] }, "soakMinutes": 0 }));
    json!({
        "schemaVersion": 1,
        "hosts": hosts,
        "channels": names.map(|name| (name, channel.clone())).collect::<Map<_, _>>(),
        "rolloutPolicies": { "waves": {
            "strategy": "waves",
            "healthGate": {},
            "onHealthFailure": "rollback-and-halt",
            "waves": waves,
        } },
        "edges": [],
        "channelEdges": [],
        "disruptionBudgets": [],
    })
}

fn wave(number: usize) -> &'static str {
    match number {
        number if number < CANARIES[0] => "first",
        number if number < CANARIES[1] => "second",
        _ => "rest",
    }
}
