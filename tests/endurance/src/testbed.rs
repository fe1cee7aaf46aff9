//! Servers and services with their default settings.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chrono::Utc;
use nixfleet_bus::{Bus, BusConfig, BusUser, LeaseConfig};
use nixfleet_harness::nats::BusUsers;
use nixfleet_harness::release::{Signer, write_directory};
use nixfleet_harness::synthetic_release::{self, CHANNEL, Shape, Version, waves};
use nixfleet_harness::{
    Database, Nats, Operator, Postgres, Service, Stack, StackConfig, postgres, scratch,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Minutes, RolloutId};
use nixfleet_store::{DatabaseConfig, Store};

/// Servers, services and connections of a run. Dropping it stops everything.
pub struct Testbed {
    // Dropped in this order: clients before servers.
    /// The driver's connection to the bus.
    pub bus: Bus,
    /// The driver's connection to the tables, as their owner.
    pub store: Store,
    /// The services.
    pub stack: Stack,
    postgres: Postgres,
    /// The bus.
    pub nats: Nats,
    /// The database of the services.
    pub database: Database,
    /// The partition of the channel.
    pub partition: Partition,
    releases: PathBuf,
    shape: Shape,
}

impl Testbed {
    /// Starts NATS, Postgres and one process of each service. Releases are polled from a directory, which
    /// has no size limit; all other settings have their defaults.
    ///
    /// # Errors
    /// When a program is missing or does not become ready.
    pub async fn start(hosts: usize) -> Result<Self> {
        let bus_config = BusConfig::default();
        let users = BusUsers::create("endurance", &bus_config.prefix, bus_config.partitions)?;
        let nats = Nats::start_for("endurance", &users)?;
        let postgres = Postgres::start_durable("endurance")?;
        let database = postgres.create_database("nixfleet").await?;
        let dir = scratch::dir("endurance")?;
        let trust = Signer::development()?.write_trust(&dir)?;
        let releases = dir.join("releases");
        std::fs::create_dir_all(&releases)?;
        let user = BusUser::OperatorTools;
        let bus_config = BusConfig {
            url: nats.url(),
            ..users.login(user, bus_config)
        };
        let mut config = StackConfig::new(dir, trust)?;
        config.nats_url = nats.url();
        config.bus_users = Some(users);
        config.prefix.clone_from(&bus_config.prefix);
        config.partitions = bus_config.partitions;
        config.database_url.clone_from(&database.url);
        // The harness makes leases short, for short runs.
        let lease = LeaseConfig::default();
        for service in Service::ALL
            .into_iter()
            .filter(|service| service.has_lease())
        {
            config.set(service, "lease.ttl_seconds", lease.ttl_seconds.to_string());
            let renew = lease.renew_seconds.to_string();
            config.set(service, "lease.renew_seconds", renew);
        }
        let source = releases.display().to_string();
        config.set(Service::Planner, "source.directory", source);
        config.set(Service::Planner, "source.poll_seconds", "1");
        let stack = Stack::start(config).await?;
        let store = Store::connect(&DatabaseConfig {
            url: database.url.clone(),
            pool_size: 2,
            ..DatabaseConfig::default()
        })?;
        Ok(Self {
            partition: Partition::of(&CHANNEL.into(), bus_config.partitions),
            bus: Bus::connect(bus_config, user.name()).await?,
            store,
            stack,
            postgres,
            nats,
            database,
            releases,
            shape: Shape {
                waves: waves(hosts).into(),
                soak: Minutes::from_minutes(0),
            },
        })
    }

    /// Builds, signs and publishes the release of a number; returns its rollout.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn publish(&self, number: u32) -> Result<RolloutId> {
        let commit = format!("e{number:07x}");
        let version = Version {
            number,
            commit: &commit,
            signed_at: Utc::now(),
        };
        let built = synthetic_release::build(&self.shape, version)?;
        write_directory(&built, &self.releases).context("publishing a release")?;
        Ok(RolloutId::new(&CHANNEL.into(), &commit.as_str().into()))
    }

    /// An operator of the gateway.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn operator(&self) -> Result<Operator> {
        self.stack.operator(0)
    }

    /// Both logs of the channel: input, output.
    pub fn logs(&self) -> [String; 2] {
        let names = self.bus.names();
        [
            names.input_stream(self.partition),
            names.output_stream(self.partition),
        ]
    }

    /// Drops all tables while the services run.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn drop_database(&self) -> Result<()> {
        postgres::execute(&self.database.url, "DROP SCHEMA nixfleet CASCADE").await
    }

    /// Stops clients, services and servers in order.
    ///
    /// # Errors
    /// When something does not stop by itself.
    pub async fn stop(mut self) -> Result<()> {
        self.bus.close().await;
        self.store.close();
        self.stack.stop()?;
        self.postgres.stop()?;
        self.nats.stop()
    }
}
