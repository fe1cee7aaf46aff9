//! Configuration that both gateways have, each bound with its reason.

mod limits;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nixfleet_service::Faults;
use serde::{Deserialize, Serialize};

use crate::access::protocol_header::Absent;
use crate::request_body::BodyLimit;

pub use limits::LimitsConfig;

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
}

/// Which releases and clients are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustConfig {
    /// `trust.json`; read again whenever it is needed, so a rotation needs no restart.
    pub trust_file: PathBuf,
    /// Signed list of refused client certificates; `None` refuses none.
    pub revocations_file: Option<PathBuf>,
    /// Its detached signature; the file name with `.sig` when absent.
    pub revocations_signature_file: Option<PathBuf>,
    /// How often the list is read again.
    pub revocations_seconds: u64,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            trust_file: "/etc/nixfleet/trust.json".into(),
            revocations_file: None,
            revocations_signature_file: None,
            revocations_seconds: 60,
        }
    }
}

impl HttpConfig {
    /// The defaults on a port of every address.
    pub fn on_port(port: u16) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            strict_protocol: false,
            header_timeout_seconds: 30,
            body_timeout_seconds: 15,
            write_timeout_seconds: 30,
            keep_alive_seconds: 20,
        }
    }

    pub(crate) fn absent_protocol(&self) -> Absent {
        if self.strict_protocol {
            Absent::Refused
        } else {
            Absent::Accepted
        }
    }

    /// The bound of a body of at most `bytes`.
    pub fn body_limit(&self, bytes: usize) -> BodyLimit {
        BodyLimit {
            bytes,
            time: Duration::from_secs(self.body_timeout_seconds),
        }
    }

    /// Adds everything that is wrong with the values.
    pub fn validate(&self, faults: &mut Faults) {
        for (seconds, key) in [
            (self.header_timeout_seconds, "http.header_timeout_seconds"),
            (self.body_timeout_seconds, "http.body_timeout_seconds"),
            (self.write_timeout_seconds, "http.write_timeout_seconds"),
            (self.keep_alive_seconds, "http.keep_alive_seconds"),
        ] {
            faults.require_range(key, seconds, 1..=300);
        }
    }
}

impl TrustConfig {
    /// Adds everything that is wrong with the values.
    pub fn validate(&self, faults: &mut Faults) {
        faults.require_positive("trust.revocations_seconds", self.revocations_seconds);
        let signature_alone =
            self.revocations_signature_file.is_some() && self.revocations_file.is_none();
        faults.require(
            !signature_alone,
            "trust.revocations_signature_file",
            "needs trust.revocations_file",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_faults() {
        let mut faults = Faults::default();
        HttpConfig::on_port(8443).validate(&mut faults);
        LimitsConfig::default().validate(&mut faults);
        TrustConfig::default().validate(&mut faults);
        assert!(faults.is_empty(), "{faults}");
    }
}
