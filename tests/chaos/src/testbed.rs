//! Servers, proxies, two processes of each service, and the hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nixfleet_bus::{BusConfig, BusUser};
use nixfleet_harness::nats::BusUsers;
use nixfleet_harness::release::Signer;
use nixfleet_harness::{
    CLOCK_SETTING, Database, Nats, Operator, Postgres, Proxy, ProxyMode, Service, Stack,
    StackConfig, Swarm, SwarmConfig, TestClock, monitoring, postgres, scratch,
};
use nixfleet_swarm::swarm_state::SwarmState;

use crate::args::Args;
use crate::fault::{FaultScope, Server, Target};
use crate::fault_schedule::LEASE_TTL;
use crate::fleet::{self, Hosts, PARTITIONS};
use nixfleet_harness::progress_printer::Printer;

/// Processes of each service.
pub const INSTANCES: usize = 2;
/// Prefix on the bus.
const PREFIX: &str = "fleet";
/// Lease renewal interval: a third of the TTL, as in production.
const LEASE_RENEW: Duration = Duration::from_secs(3);
/// Heartbeat interval of a host.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Interval between two runs of a probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Probe interval with small logs: every result of a soaking host is an event, and the logs must fill.
const PROBE_INTERVAL_SMALL_LOGS: Duration = Duration::from_millis(100);
/// Duration after which a failing enforce probe fails the host.
const SUSTAINED: Duration = Duration::from_millis(1_500);
/// Interval between two checks that every process runs.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A process: its service and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId {
    /// The service.
    pub service: Service,
    /// The number of the process, from 0.
    pub number: usize,
}

/// Proxies between one process and the servers.
struct Proxies {
    nats: Proxy,
    postgres: Proxy,
}

/// The testbed. Dropping it stops everything.
pub struct Testbed {
    // Dropped in this order: clients before servers.
    swarm: Swarm,
    /// The services.
    pub stack: Stack,
    proxies: BTreeMap<InstanceId, Proxies>,
    /// The database server.
    pub postgres: Postgres,
    /// The bus.
    pub nats: Nats,
    /// Users of the bus.
    pub bus_users: BusUsers,
    /// The database of the services, without a proxy.
    pub database: Database,
    /// The clock of each gateway for agents.
    pub gateway_clocks: Vec<TestClock>,
    /// Processes that are down because of a fault.
    pub down: BTreeSet<InstanceId>,
    /// Services that ended without a request.
    pub unexpected_exits: Vec<String>,
    printer: Printer,
}

impl Testbed {
    /// Starts servers, services and hosts.
    ///
    /// # Errors
    /// When a server or program is missing or does not get ready.
    pub async fn start(args: &Args, hosts: &Hosts, printer: Printer) -> Result<Self> {
        printer.timed_line("starting NATS, Postgres and two processes of each service");
        let bus_users = BusUsers::create("chaos", PREFIX, PARTITIONS)?;
        let nats = Nats::start_for("chaos", &bus_users)?;
        let postgres = Postgres::start("chaos")?;
        let database = postgres.create_database("nixfleet").await?;
        let dir = scratch::dir("chaos")?;
        let trust = Signer::development()?.write_trust(&dir)?;
        let mut config = StackConfig::new(dir, trust)?;
        config.nats_url = nats.url();
        config.bus_users = Some(bus_users.clone());
        config.prefix = PREFIX.to_owned();
        config.database_url = database.url.clone();
        config.instances = INSTANCES;
        config.partitions = PARTITIONS;
        if let Some(limit) = args.log_limit() {
            for service in Service::ALL {
                config.set(service, "bus.input_max_bytes", limit.to_string());
                config.set(service, "bus.output_max_bytes", limit.to_string());
            }
        }
        let gateway_clocks = (0..INSTANCES).map(|number| {
            let clock = TestClock::new(&number.to_string())?;
            config.set_for((Service::Ingest, number), CLOCK_SETTING, clock.setting());
            Ok(clock)
        });
        let gateway_clocks = gateway_clocks.collect::<Result<_>>()?;
        let proxies = insert_proxies(&mut config, &nats, &postgres).await?;
        let stack = Stack::start(config).await?;
        printer.timed_line("starting the hosts");
        let swarm = start_swarm(args, &stack, hosts)?;
        Ok(Self {
            swarm,
            stack,
            proxies,
            postgres,
            nats,
            bus_users,
            database,
            gateway_clocks,
            down: BTreeSet::new(),
            unexpected_exits: Vec::new(),
            printer,
        })
    }

    /// Addresses of servers and gateways.
    pub fn addresses(&self) -> Vec<String> {
        let config = self.stack.config();
        vec![
            format!("NATS      {}", self.nats.url()),
            format!("Postgres  {}", self.database.url),
            format!("logs      {}", config.dir.display()),
            format!("agents    {}", self.stack.urls()),
            format!(
                "people    {} (--ca {} --cert {} --key {})",
                self.stack.urls_of(Service::Console),
                config.people.cert.display(),
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

    /// The bus as programs of administrators reach it.
    pub fn operator_tools(&self) -> BusConfig {
        let config = BusConfig {
            url: self.nats.url(),
            ..BusConfig::default()
        };
        self.bus_users.login(BusUser::OperatorTools, config)
    }

    /// State of the simulated hosts.
    ///
    /// # Errors
    /// When the swarm does not run or does not answer.
    pub fn swarm_state(&mut self) -> Result<SwarmState> {
        serde_json::from_value(self.swarm.state()?).context("reading the swarm's state")
    }

    /// Port of the swarm's admin listener.
    pub fn swarm_port(&self) -> u16 {
        self.swarm.admin_port()
    }

    /// Changes the mode of proxies in front of a server.
    pub fn set_proxy_mode(
        &self,
        server: Server,
        (scope, node): (FaultScope, usize),
        mode: ProxyMode,
    ) {
        for (id, proxies) in &self.proxies {
            if scope == FaultScope::Node && id.number != node {
                continue;
            }
            match server {
                Server::Nats => proxies.nats.set(mode),
                Server::Postgres => proxies.postgres.set(mode),
            }
        }
    }

    /// Numbers of the processes, the one that owns more work first.
    pub fn instances_by_load(&mut self, target: Target) -> [usize; INSTANCES] {
        let mut work = [0; INSTANCES];
        for instance in self.stack.instances() {
            let is_meant = match target {
                Target::Node => true,
                Target::One(service) => instance.service() == service,
            };
            if is_meant && let Ok(metrics) = instance.metrics() {
                work[instance.number()] += metrics
                    .lines()
                    .filter(|line| is_ownership_metric(line))
                    .count();
            }
        }
        if work[0] >= work[1] { [0, 1] } else { [1, 0] }
    }

    /// Waits and restarts processes that end meanwhile.
    ///
    /// # Errors
    /// When a process ended that the supervisor does not restart.
    pub async fn supervise_for(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.supervise()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(POLL_INTERVAL)).await;
        }
    }

    /// Restarts services that ended unexpectedly, and records them.
    fn supervise(&mut self) -> Result<()> {
        self.swarm.check_alive()?;
        for instance in self.stack.instances() {
            if self.down.contains(&InstanceId {
                service: instance.service(),
                number: instance.number(),
            }) {
                continue;
            }
            if let Some(status) = instance.exit_status()? {
                let name = instance.name();
                self.printer
                    .timed_line(&format!("{name} ended by itself with {status}"));
                self.printer.line(&instance.tail());
                self.unexpected_exits
                    .push(format!("{name} ended with {status}"));
                instance.restart()?;
            }
        }
        Ok(())
    }

    /// The first process that is not ready, with the body of its `/readyz`.
    pub fn not_ready(&mut self) -> Option<String> {
        let mut instances = self.stack.instances().iter_mut();
        let instance = instances.find_map(|instance| (!instance.is_ready()).then_some(instance))?;
        let said = match monitoring::get(instance.admin_port(), "/readyz") {
            Ok(answer) => answer.body,
            Err(error) => format!("{error:#}"),
        };
        Some(format!("{} is not ready: {said}", instance.name()))
    }

    /// Stops all processes in order.
    ///
    /// # Errors
    /// When a process does not stop in time.
    pub fn stop(mut self) -> Result<()> {
        self.swarm.stop()?;
        self.stack.stop()?;
        self.postgres.stop()?;
        self.nats.stop()
    }
}

/// True for a metric that shows ownership of a partition or the leadership.
fn is_ownership_metric(line: &str) -> bool {
    let is_owner = line.starts_with("nixfleet_partition_owned")
        || line.starts_with("nixfleet_planner_leading");
    is_owner && line.ends_with(" 1")
}

/// Puts a proxy between every process and each server.
async fn insert_proxies(
    config: &mut StackConfig,
    nats: &Nats,
    server: &Postgres,
) -> Result<BTreeMap<InstanceId, Proxies>> {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let mut all = BTreeMap::new();
    for service in Service::ALL {
        for number in 0..config.instances {
            let proxies = Proxies {
                nats: Proxy::start(local(nats.port())).await?,
                postgres: Proxy::start(local(server.port())).await?,
            };
            let process = (service, number);
            config.set_for(
                process,
                "bus.url",
                proxies.nats.proxied_url(&config.nats_url),
            );
            let url = postgres::url_of(&config.database_url, service);
            config.set_for(process, "database.url", proxies.postgres.proxied_url(&url));
            if service == Service::Applier {
                let url = proxies.postgres.proxied_url(&config.database_url);
                config.set_for(process, "database.owner_url", url);
            }
            if service.has_lease() {
                let seconds = |time: Duration| time.as_secs().to_string();
                config.set_for(process, "lease.ttl_seconds", seconds(LEASE_TTL));
                config.set_for(process, "lease.renew_seconds", seconds(LEASE_RENEW));
            }
            all.insert(InstanceId { service, number }, proxies);
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
