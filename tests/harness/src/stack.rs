//! A whole control plane: the services as processes, any number of each.

mod instance;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

pub use instance::Instance;

use crate::nats::BusUsers;
use crate::operator::Operator;
use crate::pki::{Pair, Pki};
use crate::service::Service;
use crate::{console_key, postgres, wait_for};

/// Timeout for a started service to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// Configuration of a control plane.
#[derive(Debug, Clone)]
pub struct StackConfig {
    /// Directory for logs.
    pub dir: PathBuf,
    /// `nats://…`.
    pub nats_url: String,
    /// Users of the bus, on a server with accounts.
    pub bus_users: Option<BusUsers>,
    /// Prefix on the bus.
    pub prefix: String,
    /// `postgres://…` of the owner; each service gets that of its own user.
    pub database_url: String,
    /// Partitions of the fleet.
    pub partitions: u16,
    /// Processes of each service.
    pub instances: usize,
    /// Release trust file.
    pub trust: PathBuf,
    /// Certificate of the gateway for agents.
    pub server: Pair,
    /// Authority of the hosts' certificates, and of that of their gateway.
    pub authority: Pair,
    /// Certificate of the gateway for people.
    pub console: Pair,
    /// Key with which consoles sign commands.
    pub console_key: PathBuf,
    /// Authority of the people's certificates, and of that of their gateway.
    pub people: Pair,
    /// The operator's certificate.
    pub operator: Pair,
    /// Further settings: dotted keys of single services.
    pub settings: BTreeMap<(Service, String), String>,
    /// Dotted keys of single processes; they override all other settings.
    pub overrides: BTreeMap<(Service, usize, String), String>,
}

impl StackConfig {
    /// A configuration with one instance of each service, four partitions and fresh certificates.
    ///
    /// # Errors
    /// When the certificates cannot be written.
    pub fn new(dir: PathBuf, trust: PathBuf) -> Result<Self> {
        let hosts = Pki::create(&dir.join("pki"))?;
        let people = Pki::create(&dir.join("pki/people"))?;
        Ok(Self {
            nats_url: String::new(),
            bus_users: None,
            prefix: "fleet".to_owned(),
            database_url: String::new(),
            partitions: 4,
            instances: 1,
            trust,
            server: hosts.server()?,
            authority: hosts.authority(),
            console: people.server()?,
            console_key: console_key::write(&dir)?,
            people: people.authority(),
            operator: people.operator("demo-operator")?,
            settings: BTreeMap::new(),
            overrides: BTreeMap::new(),
            dir,
        })
    }

    /// Sets a dotted key of a service.
    pub fn set(&mut self, service: Service, key: &str, value: impl Into<String>) {
        self.settings
            .insert((service, key.to_owned()), value.into());
    }

    /// Sets a dotted key of one process of a service.
    pub fn set_for(
        &mut self,
        (service, number): (Service, usize),
        key: &str,
        value: impl Into<String>,
    ) {
        self.overrides
            .insert((service, number, key.to_owned()), value.into());
    }

    fn environment(&self, service: Service, number: usize) -> BTreeMap<String, String> {
        let mut settings = vec![
            // Processes of one machine would all take its name.
            ("instance", format!("{service}-{number}")),
            ("bus.url", self.nats_url.clone()),
            ("bus.prefix", self.prefix.clone()),
            ("bus.partitions", self.partitions.to_string()),
            (
                "database.url",
                postgres::url_of(&self.database_url, service),
            ),
        ];
        if let Some(users) = &self.bus_users {
            settings.extend(users.keys(service.name()));
        }
        if service == Service::Applier {
            settings.push(("database.owner_url", self.database_url.clone()));
        }
        if service.has_lease() {
            // Short, so that a takeover does not dominate a short run.
            settings.push(("lease.ttl_seconds", "5".to_owned()));
            settings.push(("lease.renew_seconds", "1".to_owned()));
        }
        if service.is_gateway() || service == Service::Planner {
            settings.push(("trust.trust_file", self.trust.display().to_string()));
        }
        let path = |path: PathBuf| path.display().to_string();
        match service {
            Service::Console => {
                settings.push(("operators.key_file", path(self.console_key.clone())));
            }
            Service::Reducer => {
                let keys = path(console_key::keys_file(&self.dir));
                settings.push(("operators.keys_file", keys));
            }
            Service::Ingest | Service::Planner | Service::Applier | Service::Eventlog => {}
        }
        let gateway = match service {
            Service::Ingest => Some((&self.server, &self.authority)),
            Service::Console => Some((&self.console, &self.people)),
            Service::Reducer | Service::Planner | Service::Applier | Service::Eventlog => None,
        };
        if let Some((server, authority)) = gateway {
            let path = |path: &PathBuf| path.display().to_string();
            settings.push(("tls.cert_file", path(&server.cert)));
            settings.push(("tls.key_file", path(&server.key)));
            settings.push(("tls.client_ca_file", path(&authority.cert)));
        }
        let mut environment: BTreeMap<String, String> = settings
            .into_iter()
            .map(|(key, value)| (service.variable(key), value))
            .collect();
        for ((of, key), value) in &self.settings {
            if *of == service {
                environment.insert(service.variable(key), value.clone());
            }
        }
        for ((of, process, key), value) in &self.overrides {
            if (*of, *process) == (service, number) {
                environment.insert(service.variable(key), value.clone());
            }
        }
        environment
    }
}

/// A running control plane.
#[derive(Debug)]
pub struct Stack {
    config: StackConfig,
    instances: Vec<Instance>,
}

impl Stack {
    /// Starts all services at once and waits until each is ready except for its first release.
    ///
    /// # Errors
    /// When a program is missing or does not become ready; the message quotes the end of its log.
    pub async fn start(config: StackConfig) -> Result<Self> {
        let mut stack = Self::launch(config, &Service::ALL)?;
        stack.wait_ready().await?;
        Ok(stack)
    }

    /// Starts only these services, without waiting.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn launch(config: StackConfig, services: &[Service]) -> Result<Self> {
        let mut instances = Vec::new();
        for service in services.iter().copied() {
            for number in 0..config.instances {
                let environment = config.environment(service, number);
                instances.push(Instance::start(service, number, &config.dir, environment)?);
            }
        }
        Ok(Self { config, instances })
    }

    /// Waits until every service is ready except for its first release.
    ///
    /// # Errors
    /// When a service exits or exceeds the timeout.
    pub async fn wait_ready(&mut self) -> Result<()> {
        for instance in &mut self.instances {
            let name = instance.name();
            let what = format!("{name} ready");
            let ready = wait_for(&what, READY_TIMEOUT, async || {
                instance.ready_except_release()
            });
            if let Err(error) = ready.await {
                return Err(
                    error.context(format!("end of the log of {name}:\n{}", instance.tail()))
                );
            }
        }
        Ok(())
    }

    /// The configuration that the services were started with.
    pub fn config(&self) -> &StackConfig {
        &self.config
    }

    /// All instances.
    pub fn instances(&mut self) -> &mut [Instance] {
        &mut self.instances
    }

    /// An instance of a service.
    ///
    /// # Errors
    /// When there is none with this number.
    pub fn instance(&mut self, service: Service, number: usize) -> Result<&mut Instance> {
        self.instances
            .iter_mut()
            .find(|instance| instance.service() == service && instance.number() == number)
            .with_context(|| format!("no instance {number} of {service}"))
    }

    /// `https://…` of one gateway for agents.
    ///
    /// # Errors
    /// When there is none with this number.
    pub fn url(&self, number: usize) -> Result<String> {
        self.url_of(Service::Ingest, number)
    }

    fn url_of(&self, service: Service, number: usize) -> Result<String> {
        self.instances
            .iter()
            .filter(|instance| instance.service() == service && instance.number() == number)
            .find_map(Instance::url)
            .with_context(|| format!("no instance {number} of {service}"))
    }

    /// `https://…` of every gateway for agents, comma separated.
    pub fn urls(&self) -> String {
        self.urls_of(Service::Ingest)
    }

    /// `https://…` of every instance of a gateway, comma separated.
    pub fn urls_of(&self, service: Service) -> String {
        let instances = self.instances.iter();
        let of_service = instances.filter(|instance| instance.service() == service);
        let urls: Vec<String> = of_service.filter_map(Instance::url).collect();
        urls.join(",")
    }

    /// An operator at one gateway for people.
    ///
    /// # Errors
    /// When there is none with this number, or the certificates cannot be used.
    pub fn operator(&self, number: usize) -> Result<Operator> {
        let url = self.console_url(number)?;
        Operator::new(&url, &self.config.people, &self.config.operator)
    }

    /// `https://…` of one gateway for people.
    ///
    /// # Errors
    /// When there is none with this number.
    pub fn console_url(&self, number: usize) -> Result<String> {
        self.url_of(Service::Console, number)
    }

    /// `kill -9` of every process.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill_all(&mut self) -> Result<()> {
        self.instances.iter_mut().try_for_each(Instance::kill)
    }

    /// Starts every process that does not run.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        self.instances.iter_mut().try_for_each(Instance::restart)
    }

    /// Sends SIGTERM to every process, then waits for each.
    ///
    /// # Errors
    /// When one does not stop in time or ends with a failure.
    pub fn stop(&mut self) -> Result<()> {
        for instance in &mut self.instances {
            instance.request_stop()?;
        }
        let mut failed = Vec::new();
        for instance in &mut self.instances {
            if let Err(error) = instance.stop() {
                failed.push(format!("{error:#}"));
            }
        }
        anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    }
}
