//! Twenty hosts in two channels.

use serde_json::{Map, Value, json};

/// Every host with its channel; the first two of each channel are canaries.
pub const HOSTS: [(&str, &str); 20] = [
    ("edge-00", "edge"),
    ("edge-01", "edge"),
    ("edge-02", "edge"),
    ("edge-03", "edge"),
    ("edge-04", "edge"),
    ("edge-05", "edge"),
    ("edge-06", "edge"),
    ("edge-07", "edge"),
    ("stable-00", "stable"),
    ("stable-01", "stable"),
    ("stable-02", "stable"),
    ("stable-03", "stable"),
    ("stable-04", "stable"),
    ("stable-05", "stable"),
    ("stable-06", "stable"),
    ("stable-07", "stable"),
    ("stable-08", "stable"),
    ("stable-09", "stable"),
    ("stable-10", "stable"),
    ("stable-11", "stable"),
];

/// The source of the release of a commit; one closure per channel and commit.
pub fn source(commit: &str) -> Value {
    let hosts: Map<String, Value> = HOSTS
        .iter()
        .map(|(hostname, channel)| {
            let canary = hostname.ends_with("-00") || hostname.ends_with("-01");
            let host = json!({
                "system": "x86_64-linux",
                "tags": if canary { json!(["canary"]) } else { json!([]) },
                "channel": channel,
                "closureHash": format!("{channel}-{commit}-nixos-system"),
                "pubkey": null,
            });
            ((*hostname).to_owned(), host)
        })
        .collect();
    let channel = json!({
        "rolloutPolicy": "careful",
        "reconcileIntervalMinutes": 30,
        "freshnessWindow": 1440,
        "signingIntervalMinutes": 30,
    });
    json!({
        "schemaVersion": 1,
        "hosts": hosts,
        "channels": { "edge": channel, "stable": channel },
        "rolloutPolicies": { "careful": {
            "strategy": "waves",
            "healthGate": {},
            "onHealthFailure": "rollback-and-halt",
            // A second of soak.
            "waves": [
                { "selector": { "tags": ["canary"] }, "soakMinutes": 1.0 / 60.0 },
                { "selector": { "all": true }, "soakMinutes": 1.0 / 60.0 },
            ],
        } },
        "edges": [],
        "channelEdges": [{ "gates": "edge", "gated": "stable" }],
        "disruptionBudgets": [{ "selector": { "channel": "stable" }, "maxInFlight": 4 }],
    })
}

/// Hosts whose probe fails on a closure, for a share of them.
pub fn profile(closure: &str, share: f64) -> Value {
    json!({ "failures": [
        { "closure": format!("*{closure}*"), "share": share,
          "fails": { "kind": "probe", "probeName": "http" } },
    ] })
}
