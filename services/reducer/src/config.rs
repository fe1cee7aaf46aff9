//! Configuration of the reducer, each bound with its reason.

use std::path::PathBuf;

use nixfleet_bus::{BusConfig, LeaseConfig};
use nixfleet_reducer::CheckpointLimits;
use nixfleet_service::{AdminConfig, Faults, ServiceConfig, TelemetryConfig};
use nixfleet_store::DatabaseConfig;
use serde::{Deserialize, Serialize};

/// Divisor of a log's limit that gives the largest growth between two checkpoints.
const CHECKPOINT_LOG_DIVISOR: u64 = 8;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Name of this instance; the machine's name when absent.
    pub instance: Option<String>,
    pub bus: BusConfig,
    /// Connection to the database, for reads only.
    pub database: DatabaseConfig,
    pub telemetry: TelemetryConfig,
    pub admin: AdminConfig,
    pub lease: LeaseConfig,
    pub fold: FoldConfig,
    pub checkpoint: CheckpointConfig,
    pub heartbeat: HeartbeatConfig,
    pub operators: OperatorsConfig,
}

/// Commands of people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorsConfig {
    /// File with the public keys of the consoles, `{"keys":[…]}`, each as `nixfleet keygen` prints it. Several
    /// while a key is replaced. Without it every command is rejected as `unsigned`.
    pub keys_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldConfig {
    /// Maximum of input messages in one batch: heartbeats wait until a batch is folded.
    pub batch_messages: usize,
    /// Maximum of entries in one turn, for the same reason: entries may be small.
    pub turn_entries: usize,
    /// Entries between two state hashes; a hash walks the whole state.
    pub hash_every_entries: u64,
    /// Seconds before a halted partition is tried again. Its logs, rows or manifests contradict
    /// each other until an operator acts, and frequent attempts would fill the log.
    pub halted_pause_seconds: u64,
}

/// Writing the state outside the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointConfig {
    /// Bytes that a log grows at least between two checkpoints: reading so much takes a second or two.
    /// A larger state waits until a log has grown by its size. Never more than an eighth of
    /// `bus.input_max_bytes` and `bus.output_max_bytes`, which hold two of these distances.
    pub min_log_bytes: u64,
}

/// Answering hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatConfig {
    /// Maximum of heartbeats of a partition that wait for a recovery; more are dropped.
    pub waiting_max: usize,
    /// Seconds after which a waiting heartbeat is dropped: its host has stopped waiting.
    pub patience_seconds: u64,
    /// Seconds between two publishes of last-seen times.
    pub flush_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: None,
            bus: BusConfig::default(),
            database: DatabaseConfig::default(),
            telemetry: TelemetryConfig::default(),
            admin: AdminConfig::on_port(9102),
            lease: LeaseConfig::default(),
            fold: FoldConfig::default(),
            checkpoint: CheckpointConfig::default(),
            heartbeat: HeartbeatConfig::default(),
            operators: OperatorsConfig::default(),
        }
    }
}

impl Default for FoldConfig {
    fn default() -> Self {
        Self {
            batch_messages: 512,
            turn_entries: 4_096,
            hash_every_entries: 10_000,
            halted_pause_seconds: 30,
        }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            min_log_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self {
            waiting_max: 10_000,
            patience_seconds: 5,
            flush_seconds: 15,
        }
    }
}

impl FoldConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.require_range("fold.batch_messages", self.batch_messages, 1..=512);
        faults.require_range("fold.turn_entries", self.turn_entries, 1..=100_000);
        faults.require_positive("fold.hash_every_entries", self.hash_every_entries);
        let pause = self.halted_pause_seconds;
        faults.require_range("fold.halted_pause_seconds", pause, 1..=3_600);
    }
}

impl Config {
    /// When a checkpoint is due.
    pub fn checkpoints(&self) -> CheckpointLimits {
        let smaller_log = self.bus.input_max_bytes.min(self.bus.output_max_bytes);
        CheckpointLimits {
            min_log_bytes: self.checkpoint.min_log_bytes,
            max_log_bytes: smaller_log / CHECKPOINT_LOG_DIVISOR,
        }
    }
}

impl HeartbeatConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.require_range("heartbeat.waiting_max", self.waiting_max, 1..=1_000_000);
        for (seconds, key) in [
            (self.patience_seconds, "heartbeat.patience_seconds"),
            (self.flush_seconds, "heartbeat.flush_seconds"),
        ] {
            faults.require_range(key, seconds, 1..=300);
        }
    }
}

impl ServiceConfig for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.add_section("bus", self.bus.faults());
        faults.add_section("database", self.database.faults());
        faults.add_section("lease", self.lease.faults());
        self.fold.validate(faults);
        faults.require_positive("checkpoint.min_log_bytes", self.checkpoint.min_log_bytes);
        self.heartbeat.validate(faults);
    }

    nixfleet_service::config_accessors!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_faults_and_every_bound_is_checked() {
        let mut faults = Faults::default();
        Config::default().validate(&mut faults);
        assert!(faults.is_empty(), "{faults}");
        let config = Config {
            fold: FoldConfig {
                batch_messages: 0,
                turn_entries: 0,
                hash_every_entries: 0,
                halted_pause_seconds: 0,
            },
            heartbeat: HeartbeatConfig {
                waiting_max: 0,
                patience_seconds: 0,
                flush_seconds: 0,
            },
            ..Config::default()
        };
        config.validate(&mut faults);
        assert_eq!(faults.iter().count(), 7, "{faults}");
    }
}
