//! docs/operations/recovery-both-gone.md: every host of two thousand checks in within one heartbeat interval
//! of the services being ready again, is visible, and nobody does anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use nixfleet_harness::release::{Signer, write_directory};
use nixfleet_harness::{
    Database, Nats, Operator, Postgres, Service, Stack, StackConfig, Swarm, SwarmConfig, scratch,
    wait_for,
};
use nixfleet_proto::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const HOSTS: usize = 2_000;
/// The default of the agents.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// Longest wait for the tables to show every host; a machine with other work may take long.
const DEADLINE: Duration = Duration::from_secs(300);
const CLOSURE: &str = "aa01-nixos-system";
/// Hosts per page.
const PAGE: usize = 500;

/// A host as `nixfleet hosts` shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HostRow {
    hostname: String,
    last_checkin_at: Option<Timestamp>,
    current_closure_hash: Option<String>,
}

fn hostname(number: usize) -> String {
    format!("host-{number:04}")
}

/// Three channels with edges between them, two waves each: a lost fleet has to pass every gate
/// again.
fn source() -> Value {
    let channels = ["critical", "edge", "stable"];
    let hosts: Map<String, Value> = (0..HOSTS)
        .map(|number| {
            let canary = number % 20 < 3;
            let host = json!({
                "system": "x86_64-linux",
                "tags": if canary { json!(["canary"]) } else { json!([]) },
                "channel": channels[number % 3],
                "closureHash": CLOSURE,
                "pubkey": null,
            });
            (hostname(number), host)
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
        "channels": { "edge": channel, "stable": channel, "critical": channel },
        "rolloutPolicies": { "careful": {
            "strategy": "waves",
            "healthGate": {},
            "onHealthFailure": "rollback-and-halt",
            "waves": [
                { "selector": { "tags": ["canary"] }, "soakMinutes": 1 },
                { "selector": { "all": true }, "soakMinutes": 1 },
            ],
        } },
        "edges": [],
        "channelEdges": [
            { "gates": "edge", "gated": "stable" },
            { "gates": "stable", "gated": "critical" },
        ],
        "disruptionBudgets": [{ "selector": { "all": true }, "maxInFlight": 10 }],
    })
}

fn configuration(nats: &Nats, database: &Database, dir: &Path, trust: PathBuf) -> StackConfig {
    let mut config = StackConfig::new(dir.to_path_buf(), trust).unwrap();
    config.nats_url = nats.url();
    config.database_url.clone_from(&database.url);
    let releases = dir.join("releases").display().to_string();
    config.set(Service::Planner, "source.directory", releases);
    config.set(Service::Planner, "source.poll_seconds", "0.5");
    // Publishes last-seen times soon; the default of 15 s would be half of the interval here.
    config.set(Service::Reducer, "heartbeat.flush_seconds", "2");
    config
}

fn swarm(stack: &Stack, dir: &Path) -> Swarm {
    let config = stack.config();
    Swarm::start(&SwarmConfig {
        dir: dir.to_path_buf(),
        url: stack.url(0).unwrap(),
        authority: config.authority.clone(),
        trust: config.trust.clone(),
        hostnames: (0..HOSTS).map(hostname).collect(),
        // The hosts run the release already; only the knowledge of them is lost.
        profile: json!({ "initialClosure": CLOSURE }),
        seed: 7,
        heartbeat: HEARTBEAT,
        probe_interval: Duration::from_secs(30),
        sustained: Duration::from_secs(60),
    })
    .unwrap()
}

/// When each host checked in, of those shown with the closure they run and a check-in after `since`.
async fn visible(
    operator: &Operator,
    since: Timestamp,
) -> anyhow::Result<BTreeMap<String, Timestamp>> {
    let mut visible = BTreeMap::new();
    let mut path = format!("/v1/hosts?limit={PAGE}");
    loop {
        let page = operator.get(&path).await?;
        let hosts: Vec<HostRow> = serde_json::from_value(page["hosts"].clone())?;
        for host in hosts {
            let checkin = host.last_checkin_at.filter(|at| *at > since);
            if host.current_closure_hash.as_deref() == Some(CLOSURE)
                && let Some(at) = checkin
            {
                visible.insert(host.hostname, at);
            }
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/hosts?limit={PAGE}&after={next}"),
            None => return Ok(visible),
        }
    }
}

/// Waits until every host is visible; gives the latest of the hosts' first check-ins after `since`.
async fn last_first_checkin(operator: &Operator, since: Timestamp) -> Timestamp {
    let mut first: BTreeMap<String, Timestamp> = BTreeMap::new();
    let all = wait_for("every host is visible", DEADLINE, async || {
        for (hostname, at) in visible(operator, since).await? {
            first.entry(hostname).or_insert(at);
        }
        if first.len() < HOSTS {
            // Each look reads the whole fleet: a pause leaves the processor to the services.
            tokio::time::sleep(Duration::from_secs(1)).await;
            anyhow::bail!("{} hosts are visible", first.len());
        }
        Ok(first.values().max().copied())
    });
    all.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_hosts_are_visible_again_within_one_heartbeat_interval() {
    let mut nats = Nats::start("bothgone").unwrap();
    let mut postgres = Postgres::start("bothgone").unwrap();
    let database = postgres.create_database("bothgone").await.unwrap();
    let dir = scratch::dir("bothgone").unwrap();
    let signer = Signer::development().unwrap();
    let trust = signer.write_trust(&dir).unwrap();
    let release = signer.release(&source(), "aa01", Utc::now()).unwrap();
    write_directory(&release, &dir.join("releases")).unwrap();
    let config = configuration(&nats, &database, &dir, trust);
    let mut stack = Stack::start(config).await.unwrap();
    let mut swarm = swarm(&stack, &dir);
    let operator = stack.operator(0).unwrap();
    last_first_checkin(&operator, Utc::now()).await;

    nats.kill().unwrap();
    postgres.kill().unwrap();
    nats.erase().unwrap();
    postgres.erase().unwrap();
    postgres.restart().unwrap();
    postgres.create_again(&database).await.unwrap();
    nats.restart().unwrap();

    stack.wait_ready().await.unwrap();

    let ready = Utc::now();
    let last = last_first_checkin(&operator, ready).await;
    let waited = (last - ready).to_std().unwrap();
    assert!(
        waited <= HEARTBEAT,
        "the last host checked in {waited:?} after the services were ready"
    );
    swarm.stop().unwrap();
    stack.stop().unwrap();
}
