//! Everything that runs: servers, proxies, two processes of each service, the hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nixfleet_harness::release::Signer;
use nixfleet_harness::{
    Database, Mode, Nats, Operator, Postgres, Proxy, Service, Stack, StackConfig, Swarm,
    SwarmConfig, monitor, postgres, scratch,
};
use nixfleet_swarm::state::SwarmState;

use crate::args::Args;
use crate::fault::{Scope, Server, Target};
use crate::fleet::{self, Hosts, PARTITIONS};
use crate::schedule::LEASE_TTL;
use nixfleet_harness::say::Say;

/// Processes of each service.
pub const INSTANCES: usize = 2;
/// A third of the time to live, as in production.
const LEASE_RENEW: Duration = Duration::from_secs(3);
/// Between two heartbeats of a host.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two runs of a probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// The same where logs are small: every result of a soaking host is an event, and the logs must fill.
const PROBE_INTERVAL_SMALL_LOGS: Duration = Duration::from_millis(100);
/// How long an enforce probe must fail.
const SUSTAINED: Duration = Duration::from_millis(1_500);
/// How often somebody looks whether everything lives.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One process of a service.
pub type Which = (Service, usize);

/// The ways of one process to the servers.
struct Ways {
    nats: Proxy,
    postgres: Proxy,
}

/// The world. Dropping it stops everything.
pub struct World {
    // Dropped in this order: clients before servers.
    swarm: Swarm,
    /// The services.
    pub stack: Stack,
    ways: BTreeMap<Which, Ways>,
    /// The database server.
    pub postgres: Postgres,
    /// The bus.
    pub nats: Nats,
    /// The database of the services, as seen by nobody's proxy.
    pub database: Database,
    /// Processes that are down on purpose.
    pub down: BTreeSet<Which>,
    /// Services that ended although nobody stopped them.
    pub deaths: Vec<String>,
    say: Say,
}

impl World {
    /// Starts servers, services and hosts.
    ///
    /// # Errors
    /// When something is missing or does not get ready.
    pub async fn start(args: &Args, hosts: &Hosts, say: Say) -> Result<Self> {
        say.now("starting NATS, Postgres and two processes of each service");
        let nats = Nats::start("chaos")?;
        let postgres = Postgres::start("chaos")?;
        let database = postgres.create_database("nixfleet").await?;
        let dir = scratch::dir("chaos")?;
        let trust = Signer::development()?.write_trust(&dir)?;
        let mut config = StackConfig::new(dir, trust)?;
        config.nats_url = nats.url();
        config.database_url = database.url.clone();
        config.instances = INSTANCES;
        config.partitions = PARTITIONS;
        if let Some(limit) = args.log_limit() {
            for service in Service::ALL {
                config.set(service, "bus.input_max_bytes", limit.to_string());
                config.set(service, "bus.output_max_bytes", limit.to_string());
            }
        }
        let ways = lead_through_proxies(&mut config, &nats, &postgres).await?;
        let stack = Stack::start(config).await?;
        say.now("starting the hosts");
        let swarm = start_swarm(args, &stack, hosts)?;
        Ok(Self {
            swarm,
            stack,
            ways,
            postgres,
            nats,
            database,
            down: BTreeSet::new(),
            deaths: Vec::new(),
            say,
        })
    }

    /// Where everything listens.
    pub fn addresses(&self) -> Vec<String> {
        let config = self.stack.config();
        vec![
            format!("NATS      {}", self.nats.url()),
            format!("Postgres  {}", self.database.url),
            format!("logs      {}", config.dir.display()),
            format!(
                "gateways  {} (--ca {} --cert {} --key {})",
                self.stack.urls(),
                config.authority.cert.display(),
                config.operator.cert.display(),
                config.operator.key.display()
            ),
        ]
    }

    /// An operator of each gateway.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn operators(&self) -> Result<Vec<Operator>> {
        (0..INSTANCES)
            .map(|number| self.stack.operator(number))
            .collect()
    }

    /// What the hosts know.
    ///
    /// # Errors
    /// When the swarm does not run or does not answer.
    pub fn swarm_state(&mut self) -> Result<SwarmState> {
        serde_json::from_value(self.swarm.state()?).context("reading the swarm's state")
    }

    /// Where the swarm answers.
    pub fn swarm_port(&self) -> u16 {
        self.swarm.admin_port()
    }

    /// Changes what happens between the services and a server.
    pub fn set_ways(&self, server: Server, (scope, node): (Scope, usize), mode: Mode) {
        for ((_, number), ways) in &self.ways {
            if scope == Scope::Node && *number != node {
                continue;
            }
            match server {
                Server::Nats => ways.nats.set(mode),
                Server::Postgres => ways.postgres.set(mode),
            }
        }
    }

    /// The numbers of the processes, the one with more to do first.
    pub fn rank(&mut self, target: Target) -> [usize; INSTANCES] {
        let mut work = [0; INSTANCES];
        for instance in self.stack.instances() {
            let is_meant = match target {
                Target::Node => true,
                Target::One(service) => instance.service() == service,
            };
            if is_meant && let Ok(metrics) = instance.metrics() {
                work[instance.number()] += metrics.lines().filter(|line| is_work(line)).count();
            }
        }
        if work[0] >= work[1] { [0, 1] } else { [1, 0] }
    }

    /// Lets time pass under supervision.
    ///
    /// # Errors
    /// When something ended that nobody can start again.
    pub async fn pass(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.supervise()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// Starts services again that died by themselves; that they did is a fault.
    fn supervise(&mut self) -> Result<()> {
        self.swarm.check_alive()?;
        for instance in self.stack.instances() {
            if self.down.contains(&(instance.service(), instance.number())) {
                continue;
            }
            if let Some(status) = instance.ended()? {
                let name = instance.name();
                self.say
                    .now(&format!("{name} ended by itself with {status}"));
                self.say.line(&instance.tail());
                self.deaths.push(format!("{name} ended with {status}"));
                instance.restart()?;
            }
        }
        Ok(())
    }

    /// The first process that does not answer that it is ready, and what it says.
    pub fn not_ready(&mut self) -> Option<String> {
        let mut instances = self.stack.instances().iter_mut();
        let instance = instances.find_map(|instance| (!instance.is_ready()).then_some(instance))?;
        let said = match monitor::get(instance.admin_port(), "/readyz") {
            Ok(answer) => answer.body,
            Err(error) => format!("{error:#}"),
        };
        Some(format!("{} is not ready: {said}", instance.name()))
    }

    /// Stops everything in order.
    ///
    /// # Errors
    /// When something does not stop by itself.
    pub fn stop(mut self) -> Result<()> {
        self.swarm.stop()?;
        self.stack.stop()?;
        self.postgres.stop()?;
        self.nats.stop()
    }
}

/// True for a metric that says: this process owns something.
fn is_work(line: &str) -> bool {
    let is_owner = line.starts_with("nixfleet_partition_owned")
        || line.starts_with("nixfleet_planner_leading");
    is_owner && line.ends_with(" 1")
}

/// Puts a proxy between every process and each server.
async fn lead_through_proxies(
    config: &mut StackConfig,
    nats: &Nats,
    server: &Postgres,
) -> Result<BTreeMap<Which, Ways>> {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let mut all = BTreeMap::new();
    for service in Service::ALL {
        for number in 0..config.instances {
            let ways = Ways {
                nats: Proxy::start(local(nats.port())).await?,
                postgres: Proxy::start(local(server.port())).await?,
            };
            let which = (service, number);
            config.set_for(which, "bus.url", ways.nats.through(&config.nats_url));
            let url = postgres::url_of(&config.database_url, service);
            config.set_for(which, "database.url", ways.postgres.through(&url));
            if service == Service::Applier {
                let url = ways.postgres.through(&config.database_url);
                config.set_for(which, "database.owner_url", url);
            }
            if service.has_lease() {
                let seconds = |time: Duration| time.as_secs().to_string();
                config.set_for(which, "lease.ttl_seconds", seconds(LEASE_TTL));
                config.set_for(which, "lease.renew_seconds", seconds(LEASE_RENEW));
            }
            all.insert(which, ways);
        }
    }
    Ok(all)
}

fn start_swarm(args: &Args, stack: &Stack, hosts: &Hosts) -> Result<Swarm> {
    let config = stack.config();
    let probe_interval = match args.log_limit() {
        Some(_) => PROBE_INTERVAL_SMALL_LOGS,
        None => PROBE_INTERVAL,
    };
    Swarm::start(&SwarmConfig {
        dir: config.dir.clone(),
        url: stack.urls(),
        authority: config.authority.clone(),
        trust: config.trust.clone(),
        hostnames: hosts.names(),
        profile: fleet::profile()?,
        seed: args.seed,
        heartbeat: HEARTBEAT,
        probe_interval,
        sustained: SUSTAINED,
    })
}
