//! Configuration of the planner, each bound with its reason.

use std::path::PathBuf;
use std::time::Duration;

use nixfleet_bus::{BusConfig, LeaseConfig};
use nixfleet_service::{AdminConfig, Faults, ServiceConfig, TelemetryConfig};
use nixfleet_store::DatabaseConfig;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this instance; the machine's name when absent.
    pub instance: Option<String>,
    pub bus: BusConfig,
    /// Connection to the database, to load the view.
    pub database: DatabaseConfig,
    pub telemetry: TelemetryConfig,
    pub admin: AdminConfig,
    pub lease: LeaseConfig,
    /// Source of signed releases; without one they come through the gateway.
    pub source: SourceConfig,
    pub trust: TrustConfig,
    pub planning: PlanningConfig,
}

/// Source of signed releases: a directory or an HTTP server, not both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// Release directory, as `nixfleet release --out` writes it.
    pub directory: Option<PathBuf>,
    /// Base URL of the same layout.
    pub url: Option<String>,
    /// File with a bearer token for the URL, read at every poll.
    pub bearer_token_file: Option<PathBuf>,
    /// Certificate authority of the URL beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Seconds between two polls; fractions are allowed.
    pub poll_seconds: f64,
    /// Timeout of a whole poll in seconds.
    pub timeout_seconds: u64,
    /// Longest pause after failed polls in seconds.
    pub backoff_max_seconds: u64,
    /// Maximum size of an artifact in bytes; more than a fleet of a million hosts needs.
    pub artifact_max_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrustConfig {
    /// Path of `trust.json`; read for every release, so that a rotation needs no restart.
    pub trust_file: PathBuf,
    /// Maximum age of a polled release, in minutes since its signing.
    pub freshness_minutes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanningConfig {
    /// Shortest interval in milliseconds between a plan and the next one after a change.
    pub debounce_ms: u64,
    /// Longest interval between two plans in seconds.
    pub safety_tick_seconds: u64,
    /// Maximum of output messages in one batch of a log.
    pub batch_messages: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: None,
            bus: BusConfig::default(),
            database: DatabaseConfig::default(),
            telemetry: TelemetryConfig::default(),
            admin: AdminConfig::on_port(9103),
            lease: LeaseConfig::default(),
            source: SourceConfig::default(),
            trust: TrustConfig::default(),
            planning: PlanningConfig::default(),
        }
    }
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            directory: None,
            url: None,
            bearer_token_file: None,
            ca_file: None,
            poll_seconds: 30.0,
            timeout_seconds: 15,
            backoff_max_seconds: 300,
            artifact_max_bytes: 512 * 1024 * 1024,
        }
    }
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            trust_file: "/etc/nixfleet/trust.json".into(),
            freshness_minutes: 24 * 60,
        }
    }
}

impl Default for PlanningConfig {
    fn default() -> Self {
        Self {
            debounce_ms: 20,
            safety_tick_seconds: 15,
            batch_messages: 64,
        }
    }
}

impl SourceConfig {
    pub fn poll(&self) -> Duration {
        Duration::from_secs_f64(self.poll_seconds)
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    fn validate(&self, faults: &mut Faults) {
        faults.require(
            self.directory.is_none() || self.url.is_none(),
            "source.url",
            "must not be given together with source.directory",
        );
        faults.require(
            self.url
                .as_deref()
                .is_none_or(|url| url.starts_with("http://") || url.starts_with("https://")),
            "source.url",
            "must start with http:// or https://",
        );
        faults.require_range("source.poll_seconds", self.poll_seconds, 0.1..=86_400.0);
        for (value, key) in [
            (self.timeout_seconds, "source.timeout_seconds"),
            (self.backoff_max_seconds, "source.backoff_max_seconds"),
        ] {
            faults.require_range(key, value, 1..=86_400);
        }
        faults.require_positive("source.artifact_max_bytes", self.artifact_max_bytes);
    }
}

impl PlanningConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.require_range("planning.debounce_ms", self.debounce_ms, 0..=10_000);
        let tick = self.safety_tick_seconds;
        faults.require_range("planning.safety_tick_seconds", tick, 1..=3_600);
        faults.require_range("planning.batch_messages", self.batch_messages, 1..=4_096);
    }
}

impl ServiceConfig for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.add_section("bus", self.bus.faults());
        faults.add_section("lease", self.lease.faults());
        faults.add_section("database", self.database.faults());
        self.source.validate(faults);
        self.planning.validate(faults);
        faults.require(
            (1..=5_256_000).contains(&self.trust.freshness_minutes),
            "trust.freshness_minutes",
            "must be between 1 and 5256000, which is ten years",
        );
    }

    nixfleet_service::config_accessors!();
}
