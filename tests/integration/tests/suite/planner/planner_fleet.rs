//! A fleet of three hosts with a budget of two, a reducer, and planners that poll a directory.

use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use nixfleet_bus::{BusConfig, decode_output};
use nixfleet_harness::proxy::Proxy;
use nixfleet_harness::release::{Signer, write_directory};
use nixfleet_harness::{CLOCK_SETTING, Service, TestClock, ports, wait_for};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Effect, Outcome, Timestamp};
use nixfleet_trust::{TrustFile, verify_release};
use serde_json::{Value, json};

use crate::suite::service_testbed::service_process::{ServiceProcess, TIMEOUT};
use crate::suite::service_testbed::signed_release::{channel, fleet_source};
use crate::suite::service_testbed::test_servers::TestServers;

pub const PARTITIONS: u16 = 2;

/// The objects of a release that is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objects {
    Stored,
    Missing,
}

/// Servers, trust and the release directory of the planners.
pub struct PlannerFleet {
    pub servers: TestServers,
    pub partition: Partition,
    trust: PathBuf,
    signer: Signer,
}

impl PlannerFleet {
    pub async fn new(name: &str) -> Self {
        Self::with_input_log(name, BusConfig::default().input_max_bytes).await
    }

    /// With input logs of this size.
    pub async fn with_input_log(name: &str, bytes: u64) -> Self {
        let config = BusConfig {
            input_max_bytes: bytes,
            ..BusConfig::default()
        };
        Self::with_bus(name, config).await
    }

    /// With these settings of the bus.
    pub async fn with_bus(name: &str, config: BusConfig) -> Self {
        let namespace = nixfleet_harness::test_namespace(name).await.unwrap();
        let config = BusConfig {
            partitions: PARTITIONS,
            ..config
        };
        let servers = TestServers::with(name, namespace, config).await;
        servers.store.migrate().await.unwrap();
        let signer = Signer::development().unwrap();
        Self {
            partition: Partition::of(&channel(), PARTITIONS),
            trust: signer.write_trust(&servers.dir).unwrap(),
            signer,
            servers,
        }
    }

    pub fn reducer(&self) -> ServiceProcess {
        self.servers.start_service(Service::Reducer, "0", &[])
    }

    pub fn planner(&self, number: usize) -> ServiceProcess {
        let database = &self.servers.namespace.database;
        self.planner_with_database(number, database.url_of(Service::Planner))
    }

    /// A planner that reaches the database at this URL.
    pub fn planner_with_database(&self, number: usize, url: String) -> ServiceProcess {
        self.planner_with(number, url, None)
    }

    /// A planner with a clock of its own.
    pub fn planner_with_clock(&self, number: usize, clock: &TestClock) -> ServiceProcess {
        let database = &self.servers.namespace.database;
        self.planner_with(number, database.url_of(Service::Planner), Some(clock))
    }

    fn planner_with(
        &self,
        number: usize,
        url: String,
        clock: Option<&TestClock>,
    ) -> ServiceProcess {
        let mut own = vec![
            ("database.url", url),
            ("source.directory", self.source().display().to_string()),
            ("source.poll_seconds", "0.2".to_owned()),
            ("trust.trust_file", self.trust.display().to_string()),
        ];
        own.extend(clock.map(|clock| (CLOCK_SETTING, clock.setting())));
        let servers = &self.servers;
        servers.start_service(Service::Planner, &number.to_string(), &own)
    }

    /// A proxy to the database, and the planners' URL through it.
    pub async fn database_proxy(&self) -> (Proxy, String) {
        let url = self.servers.namespace.database.url_of(Service::Planner);
        let server: tokio_postgres::Config = url.parse().unwrap();
        let port = server.get_ports()[0];
        let proxy = Proxy::start(ports::local(port)).await.unwrap();
        let proxied = proxy.proxied_url(&url);
        (proxy, proxied)
    }

    fn source(&self) -> PathBuf {
        self.servers.dir.join("release")
    }

    /// Writes a signed release to the directory that the planners poll.
    pub fn release(&self, commit: &str, signed_at: Timestamp) {
        let release = self.signer.release(&source_of(commit), commit, signed_at);
        write_directory(&release.unwrap(), &self.source()).unwrap();
    }

    /// Announces a release as another planner would.
    pub async fn announce(&self, commit: &str, signed_at: Timestamp) -> u64 {
        self.announce_with(commit, signed_at, Objects::Stored).await
    }

    /// Announces a release, with or without its objects.
    pub async fn announce_with(&self, commit: &str, signed_at: Timestamp, objects: Objects) -> u64 {
        let release = self.signer.release(&source_of(commit), commit, signed_at);
        let bundle = release.unwrap().bundle;
        let trust = TrustFile::parse(&std::fs::read(&self.trust).unwrap()).unwrap();
        let verified = verify_release(&bundle, &trust, Utc::now(), Duration::MAX).unwrap();
        let manifests = self.servers.bus.manifests();
        if objects == Objects::Stored {
            for (hash, bytes) in verified.objects(&bundle) {
                let bytes = bytes::Bytes::copy_from_slice(bytes);
                manifests.put(hash, bytes).await.unwrap();
            }
        }
        let last = manifests.newest().await.unwrap().last_seq;
        let announced = manifests.announce(&verified.announcement(), last).await;
        announced.unwrap()
    }

    /// Announces something that is no announcement.
    pub async fn announce_garbage(&self) {
        let subject = self.servers.bus.names().manifest_fleet();
        self.store_garbage(subject).await;
    }

    /// Stores a message that is no frame in an output log, as an administrator can.
    pub async fn damage_output_log(&self, partition: Partition) {
        let subject = self.servers.bus.names().output(partition, "nobody");
        self.store_garbage(subject).await;
    }

    async fn store_garbage(&self, subject: String) {
        let url = self.servers.bus.config().url.as_str();
        let nats = async_nats::connect(url).await.unwrap();
        let context = async_nats::jetstream::new(nats);
        let published = context.publish(subject, "{\"v\":1,".into());
        published.await.unwrap().await.unwrap();
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
        let current = self.servers.bus.manifests().current().await.unwrap();
        current.map(|(seq, _)| seq)
    }

    /// Waits until the release of a commit is the current one.
    pub async fn wait_announced(&self, commit: &str) -> u64 {
        let what = format!("release {commit} announced");
        let announced = wait_for(&what, TIMEOUT, async || {
            let current = self.servers.bus.manifests().current().await?;
            Ok(current.and_then(|(seq, release)| {
                let rollout = &release.rollouts[&channel()];
                (rollout.rollout_id.target_ref().as_str() == commit).then_some(seq)
            }))
        });
        announced.await.unwrap()
    }

    /// Waits until the outcomes of the partition satisfy a condition, and returns all of them.
    pub async fn wait_outcomes(
        &self,
        what: &str,
        condition: impl Fn(&[Outcome]) -> bool,
    ) -> Vec<Outcome> {
        let stream = self.servers.bus.names().output_stream(self.partition);
        let mut reader = self.servers.bus.reader(&stream, 1);
        let mut outcomes = Vec::new();
        let waited = tokio::time::timeout(TIMEOUT, async {
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

    /// Waits until exactly one of the planners leads, and returns leader and standby.
    pub async fn wait_leader(
        &self,
        planners: [ServiceProcess; 2],
    ) -> (ServiceProcess, ServiceProcess) {
        let leader = wait_for("one planner leads", TIMEOUT, async || {
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

/// Waits until a planner has refused a release for this fault.
pub async fn wait_refusal(planner: &ServiceProcess, fault: &str) {
    let line = format!("nixfleet_manifest_refusals_total{{fault=\"{fault}\"}} ");
    planner.wait_metric(&line).await;
}

/// The metric that says whether a partition is held.
pub fn held(partition: Partition, value: u8) -> String {
    format!("nixfleet_planner_partition_held{{partition=\"{partition}\"}} {value}")
}

/// Accepted entries of a name.
pub fn count(outcomes: &[Outcome], entry: &str) -> usize {
    let accepted = outcomes.iter().filter(|outcome| {
        outcome.subject.entry == entry && matches!(outcome.decision, Decision::Accepted(_))
    });
    accepted.count()
}

/// True when a hold has this reason.
pub fn states_hold(outcomes: &[Outcome], reason: &str) -> bool {
    effects(outcomes).any(|effect| {
        if let Effect::ReplaceBlocks { holds, .. } = effect {
            holds.iter().any(|hold| hold.reason == reason)
        } else {
            false
        }
    })
}

/// The highest epoch of an accepted barrier.
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

fn source_of(commit: &str) -> Value {
    let hosts = ["a", "b", "c"].map(|name| (name.to_owned(), format!("{commit}-{name}")));
    let mut source = fleet_source(hosts.into_iter(), "halt");
    source["disruptionBudgets"] = json!([{ "selector": { "all": true }, "maxInFlight": 2 }]);
    source
}
