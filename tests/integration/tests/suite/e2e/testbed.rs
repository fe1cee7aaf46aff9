//! One control plane with its hosts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use nixfleet_harness::nats::{Authentication, BusUsers, Cluster};
use nixfleet_harness::release::{Signer, write_directory};
use nixfleet_harness::{
    Database, Nats, Operator, Postgres, Service, Stack, StackConfig, Swarm, SwarmConfig, scratch,
    shared_nats, shared_postgres, unique_prefix, wait_for,
};
use serde_json::{Map, Value, json};
use tokio_postgres::NoTls;

use super::test_fleet::{HOSTS, source};

/// A rollout of twenty hosts takes some ten seconds; a loaded machine may be many times slower.
const TIMEOUT: Duration = Duration::from_secs(150);

pub struct Testbed {
    swarm: Option<Swarm>,
    pub stack: Stack,
    pub operator: Operator,
    pub database: Database,
    signer: Signer,
    dir: PathBuf,
    progress: i64,
}

impl Testbed {
    /// On the shared servers, releases are published to the gateway.
    pub async fn shared(name: &str, instances: usize) -> Self {
        let prefix = unique_prefix(name);
        let nats_url = shared_nats().unwrap().url();
        let postgres = shared_postgres().unwrap();
        let servers = (nats_url, prefix, postgres);
        Self::start(name, instances, servers, |_, _| {}).await
    }

    /// A testbed on the given servers; releases are pushed to the gateway.
    pub async fn pushed(name: &str, nats: &Nats, postgres: &Postgres) -> Self {
        let servers = (nats.url(), "fleet".to_owned(), postgres);
        Self::start(name, 1, servers, |config, _| {
            // A halted partition retries soon after its repair.
            config.set(Service::Reducer, "fold.halted_pause_seconds", "1");
            config.set(Service::Eventlog, "archive.recheck_seconds", "1");
        })
        .await
    }

    /// On a secured cluster of NATS servers, releases are published to the gateway.
    pub async fn clustered(name: &str, cluster: &Cluster, secured: &Authentication) -> Self {
        let servers = (
            cluster.url(),
            "fleet".to_owned(),
            shared_postgres().unwrap(),
        );
        Self::start(name, 1, servers, |config, _| {
            for service in Service::ALL {
                let client = secured.client(service.name()).unwrap();
                let user = secured.user(service.name()).unwrap();
                let mut set = |key: &str, value: &Path| {
                    config.set(service, key, value.display().to_string());
                };
                set("bus.credentials_file", &user);
                set("bus.ca_file", &secured.authority());
                set("bus.cert_file", &client.cert);
                set("bus.key_file", &client.key);
                config.set(service, "bus.replicas", "3");
            }
        })
        .await
    }

    /// On a server with the accounts of these users, releases are pushed to the gateway.
    pub async fn with_users(name: &str, nats: &Nats, users: &BusUsers) -> Self {
        let servers = (nats.url(), "fleet".to_owned(), shared_postgres().unwrap());
        Self::start(name, 1, servers, |config, _| {
            config.bus_users = Some(users.clone());
        })
        .await
    }

    /// A testbed on the given NATS server; releases are polled from a directory.
    pub async fn polling(name: &str, nats: &Nats) -> Self {
        Self::polled(name, nats, shared_postgres().unwrap()).await
    }

    /// A testbed on the given servers; releases are polled from a directory.
    pub async fn polled(name: &str, nats: &Nats, postgres: &Postgres) -> Self {
        let servers = (nats.url(), "fleet".to_owned(), postgres);
        Self::start(name, 1, servers, |config, dir| {
            let releases = dir.join("releases").display().to_string();
            config.set(Service::Planner, "source.directory", releases);
            config.set(Service::Planner, "source.poll_seconds", "0.5");
        })
        .await
    }

    async fn start(
        name: &str,
        instances: usize,
        (nats_url, prefix, postgres): (String, String, &Postgres),
        adjust: impl FnOnce(&mut StackConfig, &PathBuf),
    ) -> Self {
        let dir = scratch::dir(name).unwrap();
        let signer = Signer::development().unwrap();
        let trust = signer.write_trust(&dir).unwrap();
        let database = postgres.create_database(name).await.unwrap();
        let mut config = StackConfig::new(dir.clone(), trust).unwrap();
        config.nats_url = nats_url;
        config.prefix = prefix;
        config.database_url = database.url.clone();
        config.instances = instances;
        config.partitions = 2;
        adjust(&mut config, &dir);
        let stack = Stack::start(config).await.unwrap();
        Self {
            swarm: None,
            operator: stack.operator(instances - 1).unwrap(),
            stack,
            database,
            signer,
            dir,
            progress: 0,
        }
    }

    pub async fn publish(&self, commit: &str) {
        self.try_publish(commit).await.unwrap();
    }

    /// Publishes a release, or returns the refusal.
    pub async fn try_publish(&self, commit: &str) -> anyhow::Result<Value> {
        let release = self.signer.release(&source(commit), commit, Utc::now());
        self.operator.publish(&release?).await
    }

    /// Publishes a release, with retries until the gateway accepts it.
    pub async fn publish_when_possible(&self, commit: &str) {
        let release = self.signer.release(&source(commit), commit, Utc::now());
        let release = release.unwrap();
        let published = wait_for("the release is taken", TIMEOUT, async || {
            self.operator.publish(&release).await.map(Some)
        });
        published.await.unwrap();
    }

    /// Waits until a host has left Pending in the rollouts of a release.
    pub async fn wait_for_dispatch(&self, commit: &str) {
        let moved = format!(
            "SELECT count(*) FROM nixfleet.host_rollout_records
             WHERE state <> 'Pending' AND rollout_id LIKE '%@{commit}'"
        );
        self.wait("a host moves on", async |testbed| {
            (testbed.count(&moved).await > 0).then_some(())
        })
        .await;
    }

    pub fn write_release(&self, commit: &str) {
        let release = self.signer.release(&source(commit), commit, Utc::now());
        write_directory(&release.unwrap(), &self.dir.join("releases")).unwrap();
    }

    pub fn start_swarm(&mut self, profile: &Value) {
        let config = self.stack.config();
        let swarm = SwarmConfig {
            dir: self.dir.clone(),
            url: self.stack.url(0).unwrap(),
            authority: config.authority.clone(),
            trust: config.trust.clone(),
            hostnames: HOSTS.iter().map(|(name, _)| (*name).to_owned()).collect(),
            profile: profile.clone(),
            seed: 7,
            heartbeat: Duration::from_secs(2),
            probe_interval: Duration::from_millis(300),
            sustained: Duration::from_secs(1),
        };
        self.swarm = Some(Swarm::start(&swarm).unwrap());
    }

    /// Stops every host; the next swarm has new disks.
    pub fn stop_swarm(&mut self) {
        self.swarm.take().expect("the swarm runs").stop().unwrap();
    }

    /// Number returned by a statement; 0 while the table is missing.
    pub async fn count(&self, sql: &str) -> i64 {
        let (client, connection) = tokio_postgres::connect(&self.database.url, NoTls)
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        let rows = client.query(sql, &[]).await;
        drop(client);
        driver.await.unwrap().unwrap();
        rows.map_or(0, |rows| rows[0].get(0))
    }

    /// Text returned by a statement.
    pub async fn text(&self, sql: &str) -> String {
        let (client, connection) = tokio_postgres::connect(&self.database.url, NoTls)
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        let row = client.query_one(sql, &[]).await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
        row.get(0)
    }

    /// Waits until some hosts more have moved on than at the last call.
    pub async fn wait_for_progress(&mut self) {
        let wanted = self.progress + 3;
        let moved = "SELECT count(*) FROM nixfleet.host_rollout_records WHERE state <> 'Pending'";
        self.wait("hosts move on", async |testbed| {
            (testbed.count(moved).await >= wanted).then_some(())
        })
        .await;
        self.progress = wanted;
    }

    pub async fn state_of(&self, rollout_id: &str) -> String {
        let path = format!("/v1/rollouts/{rollout_id}/lifecycle");
        let lifecycle = self.operator.get(&path).await;
        lifecycle.map_or_else(
            |error| format!("{error:#}"),
            |lifecycle| lifecycle["state"].as_str().unwrap_or_default().to_owned(),
        )
    }

    pub async fn wait_until_state(&self, rollout_id: &str, state: &str) {
        self.wait(&format!("{rollout_id} {state}"), async |testbed| {
            (testbed.state_of(rollout_id).await == state).then_some(())
        })
        .await;
    }

    pub async fn wait_until_terminal(&self, commit: &str) {
        for channel in ["edge", "stable"] {
            self.wait_until_state(&format!("{channel}@{commit}"), "Terminal")
                .await;
        }
    }

    /// Waits for a condition; the error of the timeout contains the state of the rollouts.
    pub async fn wait(&self, what: &str, mut condition: impl AsyncFnMut(&Self) -> Option<()>) {
        let waited = wait_for(what, TIMEOUT, async || Ok(condition(self).await)).await;
        if let Err(error) = waited {
            let status = self.operator.get("/v1/status").await;
            panic!("{error:#}\nstatus: {status:?}");
        }
    }

    /// Checks that hosts, tables and archive agree about a finished release.
    pub async fn check_agreement(&mut self, commit: &str) {
        let swarm = self.quiet_swarm().await;
        let hosts = swarm["hosts"].as_object().unwrap();
        assert_eq!(hosts.len(), HOSTS.len());
        for (hostname, channel) in HOSTS {
            let closure = format!("{channel}-{commit}-nixos-system");
            assert_eq!(hosts[hostname]["currentClosure"], closure.as_str());
            assert_eq!(hosts[hostname]["deadLetters"], json!([]), "{hostname}");
        }
        let converged = format!(
            "SELECT count(*) FROM nixfleet.host_rollout_records WHERE state = 'Converged'
             AND rollout_id LIKE '%@{commit}' AND current_closure = target_closure"
        );
        assert_eq!(self.count(&converged).await, HOSTS.len() as i64);
        let accepted = accepted(hosts);
        let archived = "SELECT count(*) FROM (SELECT DISTINCT rollout_id, hostname,
             payload #>> '{body,event,seq}' FROM nixfleet.event_log
             WHERE payload #>> '{body,producer}' = 'agent') AS events";
        self.wait("accepted events archived", async |testbed| {
            (testbed.count(archived).await >= accepted).then_some(())
        })
        .await;
    }

    /// State of the hosts according to the swarm.
    pub fn swarm_state(&mut self) -> Value {
        let swarm = self.swarm.as_mut().expect("the swarm runs");
        swarm.state().unwrap()
    }

    async fn quiet_swarm(&mut self) -> Value {
        let swarm = self.swarm.as_mut().expect("the swarm runs");
        wait_for("no host has events to send", TIMEOUT, async || {
            let state = swarm.state()?;
            Ok((state["totals"]["pendingEvents"] == 0).then_some(state))
        })
        .await
        .unwrap()
    }

    /// Everything stops by itself and without a failure.
    pub fn stop(mut self) {
        self.swarm.take().expect("the swarm runs").stop().unwrap();
        self.stack.stop().unwrap();
    }
}

/// Number of distinct events acknowledged with 2xx.
fn accepted(hosts: &Map<String, Value>) -> i64 {
    let rollouts = hosts.values().flat_map(|host| {
        let rollouts = host["rollouts"].as_object().unwrap();
        rollouts.values()
    });
    let ranges = rollouts.flat_map(|rollout| rollout["acceptedSeqs"].as_array().unwrap());
    let count = |range: &Value| range[1].as_i64().unwrap() - range[0].as_i64().unwrap() + 1;
    ranges.map(count).sum()
}
