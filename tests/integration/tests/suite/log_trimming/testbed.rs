//! A control plane with small logs and its agents.

use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use nixfleet_harness::monitoring::StreamState;
use nixfleet_harness::release::Signer;
use nixfleet_harness::{
    Database, Operator, ScriptedAgent, Service, Stack, StackConfig, scratch, shared_nats,
    shared_postgres, unique_prefix, wait_for,
};
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_store::{DatabaseConfig, Store};
use serde_json::Value;
use tokio_postgres::NoTls;

use super::running_agents::{self, Fails, Running};
use super::sampler::Targets;
use super::three_wave_fleet::{Channels, closure, hosts, source};
use crate::suite::recovery::db_command_runner;

/// Timeout: a rollout takes a second, on a busy machine much longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// All channels share one partition, and so one pair of logs.
pub const PARTITION: u16 = 0;

/// Limits of the logs in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub input: u64,
    pub output: u64,
}

pub struct Testbed {
    pub stack: Stack,
    pub operator: Operator,
    pub database: Database,
    pub names: Names,
    pub channels: Channels,
    signer: Signer,
}

impl Testbed {
    /// Starts everything with logs of these limits, which are trimmed as soon as possible.
    pub async fn start(name: &str, channels: Channels, limits: Limits) -> Self {
        let dir: PathBuf = scratch::dir(name).unwrap();
        let signer = Signer::development().unwrap();
        let trust = signer.write_trust(&dir).unwrap();
        let database = shared_postgres().unwrap().create_database(name).await;
        let database = database.unwrap();
        let mut config = StackConfig::new(dir, trust).unwrap();
        config.nats_url = shared_nats().unwrap().url();
        config.prefix = unique_prefix(name);
        config.database_url.clone_from(&database.url);
        config.partitions = 1;
        for service in Service::ALL {
            config.set(service, "bus.input_max_bytes", limits.input.to_string());
            config.set(service, "bus.output_max_bytes", limits.output.to_string());
        }
        config.set(Service::Reducer, "fold.halted_pause_seconds", "1");
        config.set(Service::Eventlog, "archive.recheck_seconds", "1");
        config.set(Service::Eventlog, "trim.margin_seconds", "1");
        config.set(Service::Eventlog, "trim.margin_bytes", "65536");
        config.set(Service::Ingest, "rates.requests_per_second", "100000");
        config.set(Service::Ingest, "rates.requests_burst", "100000");
        let names = Names::new(config.prefix.clone());
        let stack = Stack::start(config).await.unwrap();
        Self {
            operator: stack.operator(0).unwrap(),
            stack,
            database,
            names,
            channels,
            signer,
        }
    }

    /// Starts agents of all hosts, which follow dispatches.
    pub fn start_agents(&self, fails: Fails) -> Running {
        let config = self.stack.config();
        let url = self.stack.url(0).unwrap();
        let agents = hosts(self.channels).into_iter().map(|(hostname, _)| {
            let running = closure(&hostname, "0000");
            ScriptedAgent::new(&url, &config.authority, hostname, running).unwrap()
        });
        Running::start(agents.collect(), fails)
    }

    pub async fn publish(&self, commit: &str) {
        let source = source(self.channels, commit);
        let release = self.signer.release(&source, commit, Utc::now());
        self.operator.publish(&release.unwrap()).await.unwrap();
    }

    pub fn input_stream(&self) -> String {
        self.names.input_stream(Partition::new(PARTITION))
    }

    pub fn output_stream(&self) -> String {
        self.names.output_stream(Partition::new(PARTITION))
    }

    /// Targets of an sampler.
    pub fn targets(&mut self) -> Targets {
        let instances = self.stack.instances().iter();
        let services = instances.map(|instance| (instance.name(), instance.admin_port()));
        Targets {
            services: services.collect(),
            nats: shared_nats().unwrap().monitor_port(),
            logs: [self.input_stream(), self.output_stream()],
        }
    }

    /// Current state of a stream.
    pub fn stream(&mut self, name: &str) -> StreamState {
        self.targets().logs()[name]
    }

    pub async fn state_of(&self, rollout_id: &str) -> anyhow::Result<String> {
        let path = format!("/v1/rollouts/{rollout_id}/lifecycle");
        let lifecycle = self.operator.get(&path).await?;
        Ok(lifecycle["state"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn wait_until_state(&mut self, rollout_id: &str, state: &str) {
        self.wait(&format!("{rollout_id} {state}"), async |testbed| {
            let found = testbed.state_of(rollout_id).await?;
            anyhow::ensure!(found == state, "{rollout_id} is {found}");
            Ok(())
        })
        .await;
    }

    pub async fn wait_until_ready(&mut self) {
        let targets = self.targets();
        self.wait("all services are ready", async |_| {
            let faults = targets.not_ready();
            anyhow::ensure!(faults.is_empty(), "{faults:?}");
            Ok(())
        })
        .await;
    }

    /// Waits; a failure names the services that are not ready and the size of the logs.
    pub async fn wait(
        &mut self,
        what: &str,
        mut condition: impl AsyncFnMut(&Self) -> anyhow::Result<()>,
    ) {
        let waited = wait_for(what, TIMEOUT, async || condition(self).await.map(Some)).await;
        if let Err(error) = waited {
            let targets = self.targets();
            let not_ready = targets.not_ready();
            panic!(
                "{error:#}\nnot ready: {not_ready:#?}\nlogs: {:#?}",
                targets.logs()
            );
        }
    }

    /// The number that a statement returns.
    pub async fn count(&self, sql: &str) -> anyhow::Result<i64> {
        let (client, connection) = tokio_postgres::connect(&self.database.url, NoTls).await?;
        let driver = tokio::spawn(connection);
        let row = client.query_one(sql, &[]).await;
        drop(client);
        driver.await??;
        Ok(row?.get(0))
    }

    pub fn store(&self) -> Store {
        let config = DatabaseConfig {
            url: self.database.url.clone(),
            pool_size: 2,
            ..DatabaseConfig::default()
        };
        Store::connect(&config).unwrap()
    }

    /// Waits until the tables have the last event of every host, and no event is missing.
    pub async fn wait_until_applied(&mut self, events: u64) {
        let applied = "SELECT coalesce(sum(last_event_seq), 0)::bigint
                       FROM nixfleet.host_rollout_records";
        self.wait_for_count("events in the tables", applied, events)
            .await;
    }

    /// Waits until every event is in the archive, each counted once.
    pub async fn wait_until_archived(&mut self, events: u64) {
        let archived = "SELECT count(*) FROM (SELECT DISTINCT rollout_id, hostname,
                            payload #>> '{body,event,seq}' FROM nixfleet.event_log
                            WHERE payload #>> '{body,producer}' = 'agent') AS events";
        self.wait_for_count("events in the archive", archived, events)
            .await;
    }

    async fn wait_for_count(&mut self, what: &str, sql: &str, expected: u64) {
        let expected = i64::try_from(expected).unwrap();
        self.wait(what, async |testbed| {
            let found = testbed.count(sql).await?;
            anyhow::ensure!(found == expected, "{found} of {expected} {what}");
            Ok(())
        })
        .await;
    }

    /// Asserts that every acknowledged event is in the tables and in the archive.
    pub async fn check_nothing_lost(&mut self, agents: &[ScriptedAgent]) {
        let events = running_agents::stored(agents);
        self.wait_until_applied(events).await;
        self.wait_until_archived(events).await;
    }

    /// Asserts that `nixfleet db verify` finds no difference between archive and tables.
    pub async fn verify(&self) -> Value {
        let nats_url = shared_nats().unwrap().url();
        let urls = (self.database.url.as_str(), nats_url.as_str());
        let report = db_command_runner::verify_at(urls, self.names.prefix()).await;
        assert_eq!(report["differenceCount"], 0, "{report}");
        report
    }

    /// Stops everything, which must succeed.
    pub fn stop(mut self) {
        self.stack.stop().unwrap();
    }
}
