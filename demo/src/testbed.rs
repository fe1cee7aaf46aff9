//! Servers, services and swarm of the demo, and their supervisor.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use nixfleet_harness::canary_fleet::CanaryFleet;
use nixfleet_harness::nats::BusUsers;
use nixfleet_harness::release::Signer;
use nixfleet_harness::{
    Database, Nats, Operator, Postgres, Service, Stack, StackConfig, Swarm, SwarmConfig, scratch,
};
use nixfleet_swarm::swarm_state::SwarmState;
use nixfleet_trust::BuiltRelease;
use serde_json::Value;

use crate::args::Args;
use crate::fleet::{self, Release};
use nixfleet_harness::progress_printer::Printer;

/// Largest fleet with the intervals below; the hosts of a larger one report less often, because all
/// processes share one machine.
const HOSTS_AT_FULL_PACE: usize = 400;
const PREFIX: &str = "fleet";
const PARTITIONS: u16 = 4;
const HEARTBEAT: Duration = Duration::from_secs(5);
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Duration after which a failing enforce probe fails the host.
const SUSTAINED: Duration = Duration::from_secs(2);

/// Servers, services and swarm of the demo. Dropping it stops all processes.
pub struct Testbed {
    // Dropped in this order: clients before servers.
    swarm: Option<Swarm>,
    pub stack: Stack,
    pub postgres: Postgres,
    nats: Nats,
    pub database: Database,
    /// An operator of the last gateway.
    pub operator: Operator,
    pub hosts: CanaryFleet,
    signer: Signer,
    seed: u64,
    /// Services that ended without a request.
    pub unexpected_exits: Vec<String>,
}

impl Testbed {
    /// Starts servers and services.
    pub async fn start(args: &Args, printer: &Printer) -> Result<Self> {
        printer.heading("Starting NATS, Postgres and the services");
        let users = BusUsers::create("demo", PREFIX, PARTITIONS)?;
        let nats = Nats::start_for("demo", &users)?;
        let postgres = Postgres::start("demo")?;
        let database = postgres.create_database("nixfleet").await?;
        let dir = scratch::dir("demo")?;
        let signer = Signer::development()?;
        let trust = signer.write_trust(&dir)?;
        let mut config = StackConfig::new(dir, trust)?;
        config.nats_url = nats.url();
        config.bus_users = Some(users);
        config.prefix = PREFIX.to_owned();
        config.partitions = PARTITIONS;
        config.database_url = database.url.clone();
        config.instances = usize::from(args.instances);
        let stack = Stack::start(config).await?;
        let operator = stack.operator(usize::from(args.instances) - 1)?;
        let testbed = Self {
            swarm: None,
            stack,
            postgres,
            nats,
            database,
            operator,
            hosts: fleet::hosts(args.hosts),
            signer,
            seed: args.seed,
            unexpected_exits: Vec::new(),
        };
        for line in testbed.addresses() {
            printer.line(&line);
        }
        Ok(testbed)
    }

    /// Addresses of servers and gateway.
    pub fn addresses(&self) -> Vec<String> {
        let config = self.stack.config();
        let mut lines = vec![
            format!("NATS      {}", self.nats.url()),
            format!("Postgres  {}", self.database.url),
            format!("logs      {}", config.dir.display()),
        ];
        if let Ok(url) = self.stack.url(0) {
            lines.push(format!("agents    {url}"));
        }
        if let Ok(url) = self.stack.console_url(0) {
            lines.push(format!(
                "people    {url} (--ca {} --cert {} --key {})",
                config.people.cert.display(),
                config.operator.cert.display(),
                config.operator.key.display()
            ));
        }
        lines
    }

    /// Signs and publishes a release.
    pub async fn publish(&self, release: Release) -> Result<BuiltRelease> {
        let source = fleet::source(&self.hosts, release)?;
        let built = self.signer.release(&source, release.commit(), Utc::now())?;
        self.operator
            .publish(&built)
            .await
            .with_context(|| format!("publishing {}", release.commit()))?;
        Ok(built)
    }

    /// The environment in which `nixfleet` is the operator's.
    pub fn operator_env(&self) -> Result<[(&'static str, String); 4]> {
        let config = self.stack.config();
        let path = |path: &Path| path.display().to_string();
        Ok([
            ("NIXFLEET_URL", self.stack.console_url(0)?),
            ("NIXFLEET_CA", path(&config.people.cert)),
            ("NIXFLEET_CERT", path(&config.operator.cert)),
            ("NIXFLEET_KEY", path(&config.operator.key)),
        ])
    }

    /// Writes the key that signs releases, as `nixfleet release` reads it.
    pub fn write_release_key(&self) -> Result<PathBuf> {
        self.signer.write_key(&self.stack.config().dir)
    }

    pub fn start_swarm(&mut self, hostnames: Vec<String>, profile: Value) -> Result<()> {
        let config = self.stack.config();
        let pace = u32::try_from(hostnames.len().div_ceil(HOSTS_AT_FULL_PACE))?.max(1);
        let swarm = SwarmConfig {
            dir: config.dir.clone(),
            url: self.stack.url(0)?,
            authority: config.authority.clone(),
            trust: config.trust.clone(),
            hostnames,
            profile,
            seed: self.seed,
            heartbeat: HEARTBEAT * pace,
            probe_interval: PROBE_INTERVAL * pace,
            sustained: SUSTAINED * pace,
        };
        self.swarm = Some(Swarm::start(&swarm)?);
        Ok(())
    }

    /// State of the simulated hosts.
    pub fn swarm_state(&mut self) -> Result<SwarmState> {
        let swarm = self.swarm.as_mut().context("the swarm does not run")?;
        serde_json::from_value(swarm.state()?).context("reading the swarm's state")
    }

    /// Restarts services that ended; fails when a server or the swarm did.
    pub fn supervise(&mut self, printer: &Printer) -> Result<()> {
        if let Some(swarm) = &mut self.swarm {
            swarm.check_alive()?;
        }
        for instance in self.stack.instances() {
            if !instance.is_running()? {
                let name = instance.name();
                printer.line(&format!("{name} ended by itself and is started again"));
                eprintln!("{}", instance.tail());
                self.unexpected_exits.push(name);
                instance.restart()?;
            }
        }
        Ok(())
    }

    /// `kill -9` of one service, and its start by the supervisor.
    pub fn kill(&mut self, service: Service) -> Result<()> {
        let instance = self.stack.instance(service, 0)?;
        instance.kill()?;
        instance.restart()
    }

    /// Stops swarm, services and servers in order.
    pub fn stop(mut self) -> Result<()> {
        if let Some(mut swarm) = self.swarm.take() {
            swarm.stop()?;
        }
        self.stack.stop()?;
        self.postgres.stop()?;
        self.nats.stop()
    }
}
