//! A fleet of three hosts with a budget of two, a reducer, and planners that poll a directory.

use std::path::PathBuf;

use nixfleet_bus::{Bus, BusConfig, SequenceFloors, decode_output};
use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::proxy::Proxy;
use nixfleet_harness::release::{Signer, write_directory};
use nixfleet_harness::{Service, TestNamespace, binaries, monitoring, ports, scratch, wait_for};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ChannelName, Decision, Effect, Outcome, Timestamp};
use nixfleet_store::{DatabaseConfig, Store};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::SOON;

const PARTITIONS: u16 = 2;

pub struct Fleet {
    pub bus: Bus,
    pub partition: Partition,
    scope: TestNamespace,
    dir: PathBuf,
    trust: PathBuf,
    signer: Signer,
}

/// A planner process.
pub struct Planner {
    process: Process,
    port: u16,
}

impl Fleet {
    pub async fn new(name: &str) -> Self {
        let scope = nixfleet_harness::test_namespace(name).await.unwrap();
        let config = BusConfig {
            url: scope.nats_url.clone(),
            prefix: scope.prefix.clone(),
            partitions: PARTITIONS,
            ..BusConfig::default()
        };
        let bus = Bus::connect(config, "test").await.unwrap();
        bus.ensure_layout(&SequenceFloors::default()).await.unwrap();
        let store = Store::connect(&DatabaseConfig {
            url: scope.database.url.clone(),
            pool_size: 1,
            ..DatabaseConfig::default()
        });
        store.unwrap().migrate().await.unwrap();
        let dir = scratch::dir(name).unwrap();
        let signer = Signer::development().unwrap();
        Self {
            partition: Partition::of(&ChannelName::from("stable"), PARTITIONS),
            trust: signer.write_trust(&dir).unwrap(),
            signer,
            bus,
            scope,
            dir,
        }
    }

    fn start(&self, service: &str, number: usize, own: &[(&str, String)]) -> (Process, u16) {
        let name = format!("{service}-{number}");
        let program = binaries::workspace_binary(&format!("nixfleet-{service}")).unwrap();
        let mut spec = ProcessSpec::new(&name, program, self.dir.join(format!("{name}.log")));
        let port = ports::free().unwrap();
        let user: Service = service.parse().unwrap();
        let url = self.scope.database.url_of(user);
        let common = [
            ("INSTANCE", name),
            ("BUS__URL", self.scope.nats_url.clone()),
            ("BUS__PREFIX", self.scope.prefix.clone()),
            ("BUS__PARTITIONS", PARTITIONS.to_string()),
            ("DATABASE__URL", url),
            ("DATABASE__POOL_SIZE", "3".to_owned()),
            ("ADMIN__LISTEN", format!("127.0.0.1:{port}")),
            ("LEASE__TTL_SECONDS", "4".to_owned()),
            ("LEASE__RENEW_SECONDS", "1".to_owned()),
        ];
        let service = service.to_uppercase();
        for (key, value) in common.iter().chain(own) {
            let key = format!("NIXFLEET_{service}__{key}");
            spec.env.insert(key, value.clone());
        }
        (Process::start(spec).unwrap(), port)
    }

    pub fn reducer(&self) -> Process {
        self.start("reducer", 0, &[]).0
    }

    pub fn planner(&self, number: usize) -> Planner {
        self.planner_on(number, self.scope.database.url_of(Service::Planner))
    }

    /// A planner with this way to the database.
    pub fn planner_on(&self, number: usize, database: String) -> Planner {
        let own = [
            ("DATABASE__URL", database),
            ("SOURCE__DIRECTORY", self.source().display().to_string()),
            ("SOURCE__POLL_SECONDS", "0.2".to_owned()),
            ("TRUST__TRUST_FILE", self.trust.display().to_string()),
        ];
        let (process, port) = self.start("planner", number, &own);
        Planner { process, port }
    }

    /// A way to the database that can be cut, and the URL of the planners' user on it.
    pub async fn way_to_database(&self) -> (Proxy, String) {
        let url = self.scope.database.url_of(Service::Planner);
        let server: tokio_postgres::Config = url.parse().unwrap();
        let port = server.get_ports()[0];
        let proxy = Proxy::start(ports::local(port)).await.unwrap();
        let through = proxy.proxied_url(&url);
        (proxy, through)
    }

    fn source(&self) -> PathBuf {
        self.dir.join("release")
    }

    /// Puts a signed release where the planners look.
    pub fn release(&self, commit: &str, signed_at: Timestamp) {
        let release = self.signer.release(&fleet(commit), commit, signed_at);
        write_directory(&release.unwrap(), &self.source()).unwrap();
    }

    pub fn remove_signature(&self) {
        std::fs::remove_file(self.source().join("fleet.resolved.json.sig")).unwrap();
    }

    pub fn truncate_fleet(&self) {
        let path = self.source().join("fleet.resolved.json");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    }

    /// Sequence of the current announcement.
    pub async fn announced(&self) -> Option<u64> {
        let current = self.bus.manifests().current().await.unwrap();
        current.map(|(seq, _)| seq)
    }

    /// Waits until the release of a commit is the current one.
    pub async fn wait_announced(&self, commit: &str) -> u64 {
        let what = format!("release {commit} announced");
        let announced = wait_for(&what, SOON, async || {
            let current = self.bus.manifests().current().await?;
            Ok(current.and_then(|(seq, release)| {
                let rollout = &release.rollouts[&ChannelName::from("stable")];
                (rollout.rollout_id.target_ref().as_str() == commit).then_some(seq)
            }))
        });
        announced.await.unwrap()
    }

    /// Waits until the outcomes of the partition, all of them, satisfy a condition.
    pub async fn wait_outcomes(
        &self,
        what: &str,
        condition: impl Fn(&[Outcome]) -> bool,
    ) -> Vec<Outcome> {
        let stream = self.bus.names().output_stream(self.partition);
        let mut reader = self.bus.reader(&stream, 1);
        let mut outcomes = Vec::new();
        let waited = tokio::time::timeout(SOON, async {
            while !condition(&outcomes) {
                for message in reader.next_batch(64).await.unwrap() {
                    outcomes.extend(decode_output(&message).unwrap().outcomes);
                }
            }
        });
        if waited.await.is_err() {
            panic!("{what}: not in {outcomes:#?}");
        }
        outcomes
    }

    /// Waits until exactly one of the planners leads: it and the other.
    pub async fn wait_leader(&self, planners: [Planner; 2]) -> (Planner, Planner) {
        let leader = wait_for("one planner leads", SOON, async || {
            let leading: Vec<_> = planners
                .iter()
                .map(|planner| planner.metrics().contains("nixfleet_planner_leading 1"))
                .collect();
            assert_ne!(leading, [true, true], "two planners lead");
            Ok(leading.iter().position(|leads| *leads))
        });
        let leader = leader.await.unwrap();
        let [first, second] = planners;
        if leader == 0 {
            (first, second)
        } else {
            (second, first)
        }
    }
}

impl Planner {
    /// `/metrics`; empty while the process starts.
    pub fn metrics(&self) -> String {
        monitoring::get(self.port, "/metrics").map_or_else(|_| String::new(), |answer| answer.body)
    }

    pub async fn wait_metric(&self, line: &str) {
        let found = wait_for(line, SOON, async || {
            Ok(self.metrics().contains(line).then_some(()))
        });
        if let Err(error) = found.await {
            panic!("{error:#}\n{}\n{}", self.metrics(), self.process.tail());
        }
    }

    pub async fn wait_refusal(&self, fault: &str) {
        let line = format!("nixfleet_manifest_refusals_total{{fault=\"{fault}\"}} ");
        self.wait_metric(&line).await;
    }

    pub fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// An orderly stop.
    pub fn stop(mut self) {
        let status = self.process.stop(Signal::TERM, SOON).unwrap();
        assert!(status.success(), "{status}\n{}", self.process.tail());
    }
}

/// Accepted entries of a name.
pub fn count(outcomes: &[Outcome], entry: &str) -> usize {
    let accepted = outcomes.iter().filter(|outcome| {
        outcome.subject.entry == entry && matches!(outcome.decision, Decision::Accepted(_))
    });
    accepted.count()
}

/// True when some hold was stated with this reason.
pub fn states_hold(outcomes: &[Outcome], reason: &str) -> bool {
    effects(outcomes).any(|effect| {
        if let Effect::ReplaceBlocks { holds, .. } = effect {
            holds.iter().any(|hold| hold.reason == reason)
        } else {
            false
        }
    })
}

/// The highest epoch a barrier announced.
pub fn leader_epoch(outcomes: &[Outcome]) -> u64 {
    let epochs = outcomes
        .iter()
        .filter_map(|outcome| match &outcome.decision {
            Decision::Accepted(accepted) => accepted.leader_epoch,
            Decision::Rejected(_) => None,
        });
    epochs.max().unwrap_or(0)
}

fn effects(outcomes: &[Outcome]) -> impl Iterator<Item = &Effect> {
    outcomes.iter().flat_map(|outcome| match &outcome.decision {
        Decision::Accepted(accepted) => accepted.effects.as_slice(),
        Decision::Rejected(_) => &[],
    })
}

fn fleet(commit: &str) -> Value {
    let hosts: serde_json::Map<String, Value> = ["a", "b", "c"]
        .into_iter()
        .map(|hostname| {
            let host = json!({ "system": "x86_64-linux", "tags": [], "channel": "stable",
                               "closureHash": format!("{commit}-{hostname}"), "pubkey": null });
            (hostname.to_owned(), host)
        })
        .collect();
    json!({
        "schemaVersion": 1,
        "hosts": hosts,
        "channels": { "stable": { "rolloutPolicy": "all", "reconcileIntervalMinutes": 30,
                                  "freshnessWindow": 1440, "signingIntervalMinutes": 30 } },
        "rolloutPolicies": { "all": { "strategy": "all-at-once", "onHealthFailure": "halt" } },
        "disruptionBudgets": [{ "selector": { "all": true }, "maxInFlight": 2 }],
    })
}
