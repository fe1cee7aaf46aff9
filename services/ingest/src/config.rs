//! Configuration of the gateway, each bound with its reason.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nixfleet_bus::BusConfig;
use nixfleet_service::{AdminConfig, Faults, ServiceConfig, TelemetryConfig};
use nixfleet_store::DatabaseConfig;
use serde::{Deserialize, Serialize};

use crate::body::BodyLimit;
use crate::protocol::Absent;
use crate::tls::TlsConfig;

mod limits;

pub use limits::LimitsConfig;

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// Name of this instance; the machine's name when absent.
    pub instance: Option<String>,
    /// The bus.
    pub bus: BusConfig,
    /// The database, for reads only.
    pub database: DatabaseConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Health and metrics.
    pub admin: AdminConfig,
    /// The listener.
    pub http: HttpConfig,
    /// Its certificates.
    pub tls: TlsConfig,
    /// Which releases and clients are believed.
    pub trust: TrustConfig,
    /// Bounds of what clients may ask for.
    pub limits: LimitsConfig,
}

/// The listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpConfig {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Refuses requests that do not name the protocol version.
    pub strict_protocol: bool,
    /// Longest time from the TLS handshake to the first request, for the header of any HTTP/1.1
    /// request, and for an idle HTTP/1.1 connection.
    pub header_timeout_seconds: u64,
    /// Longest time from the first to the last byte of a body.
    pub body_timeout_seconds: u64,
    /// Longest time a peer may leave an answer in the socket without reading any of it: it would
    /// hold the answer in memory.
    pub write_timeout_seconds: u64,
    /// How often a silent HTTP/2 peer is asked whether it lives; it has as long to answer.
    pub keep_alive_seconds: u64,
    /// Longest time a dispatch request is held open.
    pub poll_max_seconds: u64,
    /// Longest wait for the owner of a partition to answer a heartbeat.
    pub heartbeat_timeout_seconds: u64,
}

/// Which releases and clients are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustConfig {
    /// `trust.json`; read again whenever it is needed, so a rotation needs no restart.
    pub trust_file: PathBuf,
    /// Oldest release that may be pushed, in minutes since its signing.
    pub freshness_minutes: u64,
    /// Signed list of refused client certificates; `None` refuses none.
    pub revocations_file: Option<PathBuf>,
    /// Its detached signature; the file name with `.sig` when absent.
    pub revocations_signature_file: Option<PathBuf>,
    /// How often the list is read again.
    pub revocations_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: None,
            bus: BusConfig::default(),
            database: DatabaseConfig::default(),
            telemetry: TelemetryConfig::default(),
            admin: AdminConfig::on_port(9101),
            http: HttpConfig::default(),
            tls: TlsConfig::default(),
            trust: TrustConfig::default(),
            limits: LimitsConfig::default(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443),
            strict_protocol: false,
            header_timeout_seconds: 30,
            body_timeout_seconds: 15,
            write_timeout_seconds: 30,
            keep_alive_seconds: 20,
            poll_max_seconds: 60,
            heartbeat_timeout_seconds: 5,
        }
    }
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            trust_file: "/etc/nixfleet/trust.json".into(),
            freshness_minutes: 24 * 60,
            revocations_file: None,
            revocations_signature_file: None,
            revocations_seconds: 60,
        }
    }
}

impl HttpConfig {
    /// What a request without the protocol header means.
    pub fn absent_protocol(&self) -> Absent {
        if self.strict_protocol {
            Absent::Refused
        } else {
            Absent::Accepted
        }
    }

    fn validate(&self, faults: &mut Faults) {
        for (seconds, key) in [
            (self.header_timeout_seconds, "http.header_timeout_seconds"),
            (self.body_timeout_seconds, "http.body_timeout_seconds"),
            (self.write_timeout_seconds, "http.write_timeout_seconds"),
            (self.keep_alive_seconds, "http.keep_alive_seconds"),
            (self.poll_max_seconds, "http.poll_max_seconds"),
            (
                self.heartbeat_timeout_seconds,
                "http.heartbeat_timeout_seconds",
            ),
        ] {
            let legal = (1..=300).contains(&seconds);
            faults.require(legal, key, "must be between 1 and 300");
        }
    }
}

impl Config {
    /// Bound of event and heartbeat bodies.
    pub fn event_body(&self) -> BodyLimit {
        self.body(self.limits.event_body_bytes)
    }

    /// Bound of pushed releases.
    pub fn release_body(&self) -> BodyLimit {
        self.body(self.limits.release_body_bytes)
    }

    fn body(&self, bytes: usize) -> BodyLimit {
        BodyLimit {
            bytes,
            time: Duration::from_secs(self.http.body_timeout_seconds),
        }
    }
}

impl ServiceConfig for Config {
    fn validate(&self, faults: &mut Faults) {
        let bus = self.bus.faults().into_iter();
        faults.add_section("bus", bus.map(|fault| (fault.key, fault.message)));
        faults.add_section("database", self.database.faults());
        self.http.validate(faults);
        self.limits.validate(faults);
        for (seconds, key) in [
            (
                self.tls.handshake_timeout_seconds,
                "tls.handshake_timeout_seconds",
            ),
            (self.tls.reload_seconds, "tls.reload_seconds"),
            (self.trust.revocations_seconds, "trust.revocations_seconds"),
            (self.trust.freshness_minutes, "trust.freshness_minutes"),
        ] {
            faults.require(seconds > 0, key, "must be above 0");
        }
        let signature_alone = self.trust.revocations_signature_file.is_some()
            && self.trust.revocations_file.is_none();
        faults.require(
            !signature_alone,
            "trust.revocations_signature_file",
            "needs trust.revocations_file",
        );
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn admin(&self) -> &AdminConfig {
        &self.admin
    }

    fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_faults() {
        let mut faults = Faults::default();
        Config::default().http.validate(&mut faults);
        Config::default().limits.validate(&mut faults);
        assert!(faults.is_empty(), "{faults}");
    }
}
