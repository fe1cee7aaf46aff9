//! Configuration of the gateway for people and pipelines.

use std::path::PathBuf;

use nixfleet_bus::BusConfig;
use nixfleet_http::{BodyLimit, HttpConfig, LimitsConfig, TlsConfig, TrustConfig};
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
    /// Its certificates; the authority is the people's.
    pub tls: TlsConfig,
    /// Trusted keys and refused certificates.
    pub trust: TrustConfig,
    pub limits: LimitsConfig,
    pub releases: ReleasesConfig,
    pub operators: OperatorsConfig,
}

/// Commands of people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorsConfig {
    /// Key that signs commands, as `nixfleet keygen` writes it; its public half belongs into
    /// `operators.keys_file` of the reducers. Without it commands are answered with 503.
    pub key_file: Option<PathBuf>,
}

/// Bounds of pushed releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasesConfig {
    /// Size of a pushed release: about 100,000 hosts. Larger fleets are polled from a directory.
    pub body_bytes: usize,
    /// Oldest release that may be pushed, in minutes since its signing.
    pub freshness_minutes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: None,
            bus: BusConfig::default(),
            database: DatabaseConfig::default(),
            telemetry: TelemetryConfig::default(),
            admin: AdminConfig::on_port(9106),
            http: HttpConfig::on_port(8444),
            tls: TlsConfig::for_clients("people"),
            trust: TrustConfig::default(),
            limits: LimitsConfig::default(),
            releases: ReleasesConfig {
                body_bytes: 64 * 1024 * 1024,
                freshness_minutes: 24 * 60,
            },
            operators: OperatorsConfig::default(),
        }
    }
}

impl Config {
    pub fn command_body(&self) -> BodyLimit {
        self.http.body_limit(self.limits.body_bytes)
    }

    pub fn release_body(&self) -> BodyLimit {
        self.http.body_limit(self.releases.body_bytes)
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
        let most = self.limits.bodies_in_flight_bytes.min(1_073_741_824);
        faults.require_range(
            "releases.body_bytes",
            self.releases.body_bytes,
            1_024..=most,
        );
        let minutes = self.releases.freshness_minutes;
        faults.require_positive("releases.freshness_minutes", minutes);
    }

    nixfleet_service::config_accessors!();
}
