//! A running gateway with NATS, Postgres and any other services.

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nixfleet_harness::{Database, Service, Stack, monitoring, ports, wait_for};
use nixfleet_store::{DatabaseConfig, Store};

use super::agent_events::AgentEvents;
use super::https_client::{self, Sender};
use super::load_generator::{self, Agent};
use super::process_usage::UsageMeter;
use super::release::{self, Release};
use super::testbed::{self, Testbed};

/// Time for a gateway to verify a release.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Limits of one host that a generator with few hosts would run into.
const RAISED: [(&str, &str); 3] = [
    ("rates.requests_per_second", "1000000"),
    ("rates.requests_burst", "1000000"),
    ("limits.requests_per_client", "1000"),
];

/// A dotted key of a service and its value.
pub type Setting = (Service, &'static str, &'static str);

/// A running gateway with its servers and services.
pub struct ControlPlane {
    pub testbed: Testbed,
    pub database: Database,
    stack: std::sync::Mutex<Stack>,
    pids: Vec<(&'static str, Option<u32>)>,
    port: u16,
}

impl ControlPlane {
    /// Starts a gateway and other services, and waits until all are ready.
    pub async fn start(others: &[Service]) -> Result<Self> {
        Self::start_with(others, &[]).await
    }

    /// Starts a gateway and other services with additional settings of single services.
    pub async fn start_with(others: &[Service], settings: &[Setting]) -> Result<Self> {
        let raised = RAISED.map(|(key, value)| (Service::Ingest, key, value));
        Self::launch(others, &[settings, &raised].concat()).await
    }

    /// Starts a gateway with the limits of production.
    pub async fn start_with_default_limits() -> Result<Self> {
        Self::launch(&[], &[]).await
    }

    async fn launch(others: &[Service], settings: &[Setting]) -> Result<Self> {
        let mut testbed = Testbed::start()?;
        for (service, key, value) in settings {
            testbed.config.set(*service, key, *value);
        }
        // Creates streams large enough for a long log, before a service creates small ones.
        testbed.bus().await?.close().await;
        let (database, store) = testbed::create_database().await?;
        store.close();
        let mut services = others.to_vec();
        services.push(Service::Ingest);
        let mut stack = testbed.launch(&services, &database)?;
        stack.wait_ready().await?;
        let mut pids = vec![("generator", Some(std::process::id()))];
        for service in &services {
            pids.push((service.name(), stack.instance(*service, 0)?.pid()));
        }
        pids.push(("nats", testbed.nats.pid()));
        pids.push(("postgres", testbed::postgres()?.pid()));
        Ok(Self {
            port: port_of(&stack.url(0)?)?,
            stack: std::sync::Mutex::new(stack),
            pids,
            testbed,
            database,
        })
    }

    /// `https://…` of the gateway.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Connects agents.
    pub async fn agents(&self, events: Vec<AgentEvents>) -> Result<Vec<Agent>> {
        let address = ports::local(self.port);
        load_generator::connect(address, &self.testbed.config.authority, events).await
    }

    /// Announces a release and waits until the gateway has it: events of other rollouts are refused.
    pub async fn announce(&self, release: &Release) -> Result<()> {
        let bus = self.testbed.bus().await?;
        release::store(&bus, release).await?;
        release::announce(&bus, release, &self.testbed.config.trust).await?;
        bus.close().await;
        self.wait_for_release().await
    }

    /// Waits until the gateway has a release.
    pub async fn wait_for_release(&self) -> Result<()> {
        let admin_port = {
            let mut stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
            stack.instance(Service::Ingest, 0)?.admin_port()
        };
        wait_for("the gateway has the release", RELEASE_TIMEOUT, async || {
            let answer = monitoring::get(admin_port, "/readyz")?;
            Ok((answer.status == 200).then_some(()))
        })
        .await
    }

    /// An operator with a connection to the console, which has to be among the other services.
    pub async fn operator(&self) -> Result<Sender> {
        let config = &self.testbed.config;
        let url = {
            let stack = self.stack.lock();
            stack
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .console_url(0)?
        };
        let address = ports::local(port_of(&url)?);
        https_client::open(address, &config.people, &config.operator).await
    }

    /// A connection to the tables, as their owner.
    pub fn store(&self) -> Result<Store> {
        let config = DatabaseConfig {
            url: self.database.url.clone(),
            pool_size: 2,
            ..DatabaseConfig::default()
        };
        Ok(Store::connect(&config)?)
    }

    /// Starts measuring the CPU usage of all processes.
    pub fn meter(&self) -> Result<UsageMeter> {
        UsageMeter::start(self.pids.iter().copied())
    }

    pub fn stop(&self) -> Result<()> {
        let stack = self.stack.lock();
        stack
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .stop()
    }
}

fn port_of(url: &str) -> Result<u16> {
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
    port.with_context(|| format!("{url} has no port"))
}
