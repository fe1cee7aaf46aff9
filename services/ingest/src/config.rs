//! Configuration of the gateway for agents.

use std::time::Duration;

use nixfleet_bus::BusConfig;
use nixfleet_http::{BodyLimit, HttpConfig, LimitsConfig, RatesConfig, TlsConfig, TrustConfig};
use nixfleet_service::{AdminConfig, Faults, ServiceConfig, TelemetryConfig};
use nixfleet_store::DatabaseConfig;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Name of this instance; the machine's name when absent.
    pub instance: Option<String>,
    pub bus: BusConfig,
    /// The database, for reads only.
    pub database: DatabaseConfig,
    pub telemetry: TelemetryConfig,
    pub admin: AdminConfig,
    pub http: HttpConfig,
    /// Its certificates; the authority is the hosts'.
    pub tls: TlsConfig,
    /// Trusted keys and refused certificates.
    pub trust: TrustConfig,
    pub limits: LimitsConfig,
    /// How often each host may ask.
    pub rates: RatesConfig,
    pub agents: AgentsConfig,
}

/// Longest waits for the answers that agents ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentsConfig {
    /// Longest time a dispatch request is held open.
    pub poll_max_seconds: u64,
    /// Longest wait for the owner of a partition to answer a heartbeat.
    pub heartbeat_timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: None,
            bus: BusConfig::default(),
            database: DatabaseConfig::default(),
            telemetry: TelemetryConfig::default(),
            admin: AdminConfig::on_port(9101),
            http: HttpConfig::on_port(8443),
            tls: TlsConfig::for_clients("hosts"),
            trust: TrustConfig::default(),
            limits: LimitsConfig::default(),
            rates: RatesConfig::default(),
            agents: AgentsConfig {
                poll_max_seconds: 60,
                heartbeat_timeout_seconds: 5,
            },
        }
    }
}

impl Config {
    pub fn body_limit(&self) -> BodyLimit {
        self.http.body_limit(self.limits.body_bytes)
    }

    pub fn poll_max(&self) -> Duration {
        Duration::from_secs(self.agents.poll_max_seconds)
    }
}

impl ServiceConfig for Config {
    fn validate(&self, faults: &mut Faults) {
        faults.add_section("bus", self.bus.faults());
        faults.add_section("database", self.database.faults());
        self.http.validate(faults);
        self.tls.validate(faults);
        self.trust.validate(faults);
        self.limits.validate(faults);
        self.rates.validate(faults);
        let agents = &self.agents;
        for (seconds, key) in [
            (agents.poll_max_seconds, "agents.poll_max_seconds"),
            (
                agents.heartbeat_timeout_seconds,
                "agents.heartbeat_timeout_seconds",
            ),
        ] {
            faults.require_range(key, seconds, 1..=300);
        }
    }

    nixfleet_service::config_accessors!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_lack_only_bus_and_database() {
        let mut faults = Faults::default();
        Config::default().validate(&mut faults);
        let keys = faults.to_string();
        assert!(
            !keys.contains("agents.") && !keys.contains("rates."),
            "{keys}"
        );
    }
}
