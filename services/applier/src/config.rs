//! Configuration of the applier, each bound with its reason.

use std::time::Duration;

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
    pub turn: TurnConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnConfig {
    /// Maximum of output frames in one batch: limits memory, as a frame may have 512 outcomes.
    pub frames_max: usize,
    /// Maximum of outcomes in one transaction, rounded up to whole frames: above some thousand rows
    /// a transaction gets longer but not cheaper per row.
    pub outcomes_max: usize,
    /// Longest pause between two attempts while the database or the bus fails, in milliseconds.
    pub retry_max_ms: u64,
    /// Seconds between two checks of an idle partition that its cursor is still in the database,
    /// and between two attempts of a halted partition.
    pub check_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: None,
            bus: BusConfig::default(),
            database: DatabaseConfig::default(),
            telemetry: TelemetryConfig::default(),
            admin: AdminConfig::on_port(9104),
            lease: LeaseConfig::default(),
            turn: TurnConfig::default(),
        }
    }
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self {
            frames_max: 64,
            outcomes_max: 5_000,
            retry_max_ms: 5_000,
            check_seconds: 5,
        }
    }
}

impl TurnConfig {
    pub fn check(&self) -> Duration {
        Duration::from_secs(self.check_seconds)
    }

    pub fn retry_max(&self) -> Duration {
        Duration::from_millis(self.retry_max_ms)
    }
}

impl ServiceConfig for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.add_section("bus", self.bus.faults());
        faults.add_section("database", self.database.faults());
        faults.add_section("lease", self.lease.faults());
        let turn = &self.turn;
        faults.require_range("turn.frames_max", turn.frames_max, 1..=4_096);
        faults.require_range("turn.outcomes_max", turn.outcomes_max, 1..=100_000);
        faults.require_range("turn.retry_max_ms", turn.retry_max_ms, 100..=60_000);
        faults.require_range("turn.check_seconds", turn.check_seconds, 1..=300);
    }

    nixfleet_service::config_accessors!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_configuration_is_valid() {
        let mut faults = Faults::default();
        Config::default().validate(&mut faults);
        assert!(faults.is_empty(), "{faults}");
    }
}
