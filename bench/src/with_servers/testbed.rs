//! The servers of a stage.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, anyhow};
use nixfleet_bus::{Bus, BusConfig, SequenceFloors};
use nixfleet_harness::postgres::execute;
use nixfleet_harness::release::Signer;
use nixfleet_harness::{Database, Nats, Postgres, Service, Stack, StackConfig, scratch};
use nixfleet_store::{DatabaseConfig, Store};

/// Prefix of all streams except those of the baselines.
const PREFIX: &str = "fleet";
/// Partitions of the fleet. The synthetic fleet has one channel, and a channel has one partition: the work
/// of one owner is measured for any number of partitions.
const PARTITIONS: u16 = 1;

/// A NATS server with an empty store, and where the services find it.
pub struct Testbed {
    pub nats: Nats,
    /// Configuration of the services, without a database.
    pub config: StackConfig,
}

/// The Postgres server of this run; it waits for the disk at every commit.
pub fn postgres() -> Result<&'static Postgres> {
    static POSTGRES: OnceLock<Result<Postgres, String>> = OnceLock::new();
    POSTGRES
        .get_or_init(|| Postgres::start_durable("bench").map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

/// A new database with the schema and the rights of every service. Earlier writes are flushed to disk, so
/// that the server does not write them during a measurement.
pub async fn create_database() -> Result<(Database, Store)> {
    let database = postgres()?.create_database("bench").await?;
    let store = Store::connect(&DatabaseConfig {
        url: database.url.clone(),
        pool_size: 2,
        ..DatabaseConfig::default()
    })?;
    store.migrate().await.context("making the schema")?;
    execute(&postgres()?.superuser_url("postgres"), "CHECKPOINT").await?;
    Ok((database, store))
}

impl Testbed {
    /// Starts a server with an empty store.
    pub fn start() -> Result<Self> {
        let nats = Nats::start("bench")?;
        let dir: PathBuf = scratch::dir("services")?;
        let trust = Signer::development()?.write_trust(&dir)?;
        let mut config = StackConfig::new(dir, trust)?;
        config.nats_url = nats.url();
        config.prefix = PREFIX.to_owned();
        config.partitions = PARTITIONS;
        Ok(Self { nats, config })
    }

    /// A connection to the bus of the services, with all streams.
    pub async fn bus(&self) -> Result<Bus> {
        self.bus_of(PREFIX.to_owned()).await
    }

    /// As [`Testbed::bus`], with a prefix that no service uses.
    pub async fn other_bus(&self) -> Result<Bus> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        self.bus_of(format!("baseline{number}")).await
    }

    async fn bus_of(&self, prefix: String) -> Result<Bus> {
        let config = BusConfig {
            url: self.nats.url(),
            prefix,
            partitions: PARTITIONS,
            // The log of a stage has to fit completely.
            input_max_bytes: 64 << 30,
            output_max_bytes: 64 << 30,
            ..BusConfig::default()
        };
        let bus = Bus::connect(config, "bench").await?;
        bus.ensure_layout(&SequenceFloors::default()).await?;
        Ok(bus)
    }

    /// Starts services on a database, without waiting.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn launch(&self, services: &[Service], database: &Database) -> Result<Stack> {
        let mut config = self.config.clone();
        config.database_url = database.url.clone();
        Stack::launch(config, services)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        // Logs of a stage are large: the next one needs the room.
        let gone = self.nats.kill().and_then(|()| self.nats.erase());
        if let Err(error) = gone {
            eprintln!("nixfleet-bench: {error:#}");
        }
    }
}
