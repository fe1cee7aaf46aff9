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
    /// Longest time for the header of a request, and for an idle HTTP/1.1 connection.
    pub header_timeout_seconds: u64,
    /// Longest time from the first to the last byte of a body.
    pub body_timeout_seconds: u64,
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

/// Bounds of what clients may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Open connections. One long-poll per host plus some for people; about 50 KiB each.
    pub connections: usize,
    /// Requests worked on at once, waiting dispatch requests not counted. Enough to fill frames,
    /// few enough to answer "busy" before the deadline of the clients.
    pub requests_in_flight: usize,
    /// Requests on one HTTP/2 connection at once: an agent has three.
    pub streams_per_connection: u32,
    /// Size of a request header.
    pub header_bytes: u32,
    /// Size of an event or heartbeat: an entry must fit into one frame with room to spare, and a
    /// frame has at most 512 KiB.
    pub event_body_bytes: usize,
    /// Size of a pushed release: about 100,000 hosts. Larger fleets are polled from a directory.
    pub release_body_bytes: usize,
    /// Bodies held in memory at once, all together.
    pub bodies_in_flight_bytes: usize,
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

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 20_000,
            requests_in_flight: 4_096,
            streams_per_connection: 64,
            header_bytes: 16 * 1024,
            event_body_bytes: 256 * 1024,
            release_body_bytes: 64 * 1024 * 1024,
            bodies_in_flight_bytes: 256 * 1024 * 1024,
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

impl LimitsConfig {
    fn validate(&self, faults: &mut Faults) {
        // The semaphores behind them hold no more.
        let countable = |count: usize| (1..=1_000_000).contains(&count);
        let message = "must be between 1 and 1000000";
        faults.require(countable(self.connections), "limits.connections", message);
        let requests = countable(self.requests_in_flight);
        faults.require(requests, "limits.requests_in_flight", message);
        let streams = (1..=1_024).contains(&self.streams_per_connection);
        let message = "must be between 1 and 1024";
        faults.require(streams, "limits.streams_per_connection", message);
        let header = (8_192..=1_048_576).contains(&self.header_bytes);
        let message = "must be between 8192, the least the HTTP library takes, and 1048576";
        faults.require(header, "limits.header_bytes", message);
        let event = (1_024..=262_144).contains(&self.event_body_bytes);
        let message = "must be between 1024 and 262144, half a frame";
        faults.require(event, "limits.event_body_bytes", message);
        let release = (1_024..=1_073_741_824).contains(&self.release_body_bytes);
        let message = "must be between 1024 and 1073741824";
        faults.require(release, "limits.release_body_bytes", message);
        let room = self.bodies_in_flight_bytes >= self.release_body_bytes
            && self.bodies_in_flight_bytes <= 64 * 1024 * 1024 * 1024;
        let message = "must hold at least one release body, and at most 64 GiB";
        faults.require(room, "limits.bodies_in_flight_bytes", message);
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

    fn secret_keys() -> &'static [&'static str] {
        &["database.url"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_faults_and_every_bound_is_checked() {
        let mut faults = Faults::default();
        Config::default().http.validate(&mut faults);
        Config::default().limits.validate(&mut faults);
        assert!(faults.is_empty(), "{faults}");
        let limits = LimitsConfig {
            connections: 0,
            requests_in_flight: 0,
            streams_per_connection: 0,
            header_bytes: 1,
            event_body_bytes: 600_000,
            release_body_bytes: 2,
            bodies_in_flight_bytes: 1,
        };
        limits.validate(&mut faults);
        assert_eq!(faults.iter().count(), 7, "{faults}");
    }
}
