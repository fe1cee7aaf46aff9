//! Configuration of the archive, each bound with its reason.

use nixfleet_bus::{BusConfig, LeaseConfig};
use nixfleet_service::{AdminConfig, Faults, ServiceConfig, TelemetryConfig};
use nixfleet_store::DatabaseConfig;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Name of this instance; the machine's name when absent.
    pub instance: Option<String>,
    pub bus: BusConfig,
    pub database: DatabaseConfig,
    pub telemetry: TelemetryConfig,
    pub admin: AdminConfig,
    pub lease: LeaseConfig,
    pub archive: ArchiveConfig,
    pub trim: TrimConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveConfig {
    /// Maximum of messages in one batch: limits memory, as a message may have 960 KiB.
    pub batch_messages: usize,
    /// Rows after which a transaction ends: longer ones are not faster, and lose more work when
    /// they fail. The rows of a message stay together.
    pub batch_rows: usize,
    /// Seconds after which a stopped stream is tried again.
    pub recheck_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimConfig {
    /// Milliseconds between two trims of a partition's logs; one that removes messages costs the
    /// server a rewrite of at most one block.
    pub every_ms: u64,
    /// Seconds for which an unneeded message stays for readers that are a little behind.
    pub margin_seconds: u64,
    /// Maximum of bytes of such messages; never more than a sixteenth of the log's limit.
    pub margin_bytes: u64,
}

impl Default for TrimConfig {
    fn default() -> Self {
        Self {
            every_ms: 1_000,
            margin_seconds: 60,
            margin_bytes: 16 * 1024 * 1024,
        }
    }
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            batch_messages: 256,
            batch_rows: 5_000,
            recheck_seconds: 30,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: None,
            bus: BusConfig::default(),
            database: DatabaseConfig::default(),
            telemetry: TelemetryConfig::default(),
            admin: AdminConfig::on_port(9105),
            lease: LeaseConfig::default(),
            archive: ArchiveConfig::default(),
            trim: TrimConfig::default(),
        }
    }
}

impl ServiceConfig for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.add_section("bus", self.bus.faults());
        faults.add_section("lease", self.lease.faults());
        faults.add_section("database", self.database.faults());
        let archive = &self.archive;
        faults.require_range("archive.batch_messages", archive.batch_messages, 1..=4_096);
        faults.require_range("archive.batch_rows", archive.batch_rows, 1..=100_000);
        faults.require_positive("archive.recheck_seconds", archive.recheck_seconds);
        let trim = &self.trim;
        faults.require_range("trim.every_ms", trim.every_ms, 10..=60_000);
        let margin = trim.margin_seconds <= 86_400;
        faults.require(margin, "trim.margin_seconds", "must be at most 86400");
    }

    nixfleet_service::config_accessors!();
}
