//! Configuration of the bus, with a reason for each bound.

use std::path::PathBuf;
use std::time::Duration;

use nixfleet_proto::Entry;
use nixfleet_proto::frame::{MAX_FRAME_BYTES, MAX_FRAME_ENTRIES};
use nixfleet_proto::subject::MAX_PARTITIONS;
use serde::{Deserialize, Serialize};

use crate::clock::CLOCK_OFFSET_MAX;

const MIB: u64 = 1024 * 1024;

/// Section `bus` of every service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    /// Servers, comma separated: `nats://host:4222,nats://other:4222`. No user and no password: those are
    /// `credentials_file`, or `cert_file` and `key_file`.
    pub url: String,
    /// First token of every subject and, in upper case, of every stream. Each fleet has its own prefix.
    pub prefix: String,
    /// Partitions of the fleet; fixed when the streams are created.
    pub partitions: u16,
    /// Replicas of every stream: 1 on a single server, 3 on a cluster.
    pub replicas: usize,
    /// Prefix of JetStream's API: `JS.<prefix>` on servers with the accounts of `nixfleet bus users`. Absent on
    /// servers without accounts.
    pub api_prefix: Option<String>,
    /// NATS credentials file (user JWT and seed).
    pub credentials_file: Option<PathBuf>,
    /// Certificate authority of the servers; setting it makes TLS mandatory.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, for servers that require one.
    pub cert_file: Option<PathBuf>,
    /// Private key of the client certificate.
    pub key_file: Option<PathBuf>,
    /// How long a starting service waits for its first connection.
    pub connect_deadline_seconds: u64,
    /// Longest wait for one answer of the JetStream API; a leader election takes about a second.
    pub request_timeout_seconds: u64,
    /// Longest wait for one publish acknowledgement before the same message is sent again.
    pub ack_timeout_ms: u64,
    /// Longest time an entry may wait for its acknowledgement, retries included. Shorter than the clients'
    /// own timeouts, so that they get an answer.
    pub append_deadline_ms: u64,
    /// Entries that one process may queue per partition; bounds memory when the log stalls.
    pub input_queue_entries: usize,
    /// Most entries of one input frame; bounds the work that one message causes in a reducer.
    pub frame_max_entries: usize,
    /// Most bytes of one input frame: half the server's default message limit.
    pub frame_max_bytes: usize,
    /// How long the server recognises a repeated message id; must be longer than every retry.
    pub duplicate_window_seconds: u64,
    /// Size limit of one partition's input log. The log is trimmed continuously; a full log rejects entries
    /// and never drops them.
    pub input_max_bytes: u64,
    /// Size limit of one partition's output log. The log is trimmed continuously; a full log stops the
    /// reducer and never drops frames.
    pub output_max_bytes: u64,
    /// Age at which announcements are deleted; much longer than any freshness window.
    pub manifest_max_age_days: u64,
    /// Announcements kept per subject: the last one is current, the others wait for the archive.
    pub manifest_history: u64,
    /// Largest artifact that is loaded into memory; large enough for a fleet of a million hosts.
    pub manifest_max_object_bytes: u64,
    /// Size limit of the dead-letter stream. A full stream drops its oldest messages, so that undecodable
    /// messages cannot stop the fleet.
    pub dead_max_bytes: u64,
    /// Age at which dead letters are deleted.
    pub dead_max_age_days: u64,
    /// Messages a reader requests at once.
    pub reader_batch_messages: usize,
    /// Bytes a reader requests at once; bounds its memory when frames are large.
    pub reader_batch_bytes: usize,
    /// Time without a message after which a reader compares its position with the stream's.
    pub reader_stall_seconds: u64,
    /// For tests: a file with the milliseconds by which the clock of this process is off, read while the process
    /// runs.
    pub test_clock_file: Option<PathBuf>,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            prefix: "fleet".to_owned(),
            partitions: 8,
            replicas: 1,
            api_prefix: None,
            credentials_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            connect_deadline_seconds: 60,
            request_timeout_seconds: 5,
            ack_timeout_ms: 2_000,
            append_deadline_ms: 10_000,
            input_queue_entries: 16_384,
            frame_max_entries: MAX_FRAME_ENTRIES,
            frame_max_bytes: MAX_FRAME_BYTES,
            duplicate_window_seconds: 120,
            input_max_bytes: 512 * MIB,
            output_max_bytes: 512 * MIB,
            manifest_max_age_days: 365,
            manifest_history: 64,
            manifest_max_object_bytes: 256 * MIB,
            dead_max_bytes: 128 * MIB,
            dead_max_age_days: 30,
            reader_batch_messages: 512,
            reader_batch_bytes: (16 * MIB) as usize,
            reader_stall_seconds: 5,
            test_clock_file: None,
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct ConfigFault {
    /// Key inside the section.
    pub key: &'static str,
    /// The fault and the accepted values.
    pub message: String,
}

/// Key inside the section and message: the form in which a service configuration collects faults.
impl From<ConfigFault> for (&'static str, String) {
    fn from(fault: ConfigFault) -> Self {
        (fault.key, fault.message)
    }
}

impl BusConfig {
    /// Prefix of JetStream's API in the account of this user.
    #[cfg(feature = "shell")]
    pub(crate) fn jetstream_prefix(&self) -> &str {
        self.api_prefix.as_deref().unwrap_or("$JS.API")
    }

    /// All faults of the values; empty when they are valid.
    pub fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, key: &'static str, message: &str| {
            if !holds {
                let message = message.to_owned();
                faults.push(ConfigFault { key, message });
            }
        };
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let prefix = !self.prefix.is_empty() && self.prefix.bytes().all(legal);
        check(!self.url.trim().is_empty(), "url", "must name a server");
        check(prefix, "prefix", "must be one or more of a-z, 0-9 and '-'");
        let rule = "must not hold a user or password, which are not used: set credentials_file, or cert_file \
                    and key_file";
        check(!self.url.contains('@'), "url", rule);
        let legal = |text: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'$');
            !text.is_empty() && text.bytes().all(plain)
        };
        let api = self.api_prefix.as_deref().is_none_or(legal);
        check(api, "api_prefix", "must be a subject such as JS.fleet");
        let partitions = (1..=MAX_PARTITIONS).contains(&self.partitions);
        check(partitions, "partitions", "must be between 1 and 256");
        let replicas = matches!(self.replicas, 1 | 3 | 5);
        check(replicas, "replicas", "must be 1, 3 or 5");
        let pair = self.cert_file.is_some() == self.key_file.is_some();
        check(pair, "cert_file", "needs key_file, and the other way round");
        let entries = (1..=MAX_FRAME_ENTRIES).contains(&self.frame_max_entries);
        let rule = "must be between 1 and 512, the limit of every reader";
        check(entries, "frame_max_entries", rule);
        let bytes = (1024..=MAX_FRAME_BYTES).contains(&self.frame_max_bytes);
        let rule = "must be between 1024 and 524288, the limit of every reader";
        check(bytes, "frame_max_bytes", rule);
        let queue = self.input_queue_entries >= self.frame_max_entries;
        check(
            queue,
            "input_queue_entries",
            "must hold at least one full frame",
        );
        let deadline = self.append_deadline_ms >= self.ack_timeout_ms;
        let rule = "must not be shorter than ack_timeout_ms";
        check(deadline, "append_deadline_ms", rule);
        let slack = Entry::CLOCK_SLACK - CLOCK_OFFSET_MAX;
        let deadline =
            i128::from(self.append_deadline_ms) * 3 <= i128::from(slack.num_milliseconds()) * 2;
        let rule = "must be at most 20000, or the fold rejects entries that waited";
        check(deadline, "append_deadline_ms", rule);
        let window = self.duplicate_window_seconds * 1_000 > 2 * self.append_deadline_ms;
        let rule = "must be more than twice append_deadline_ms, or a late retry is stored twice";
        check(window, "duplicate_window_seconds", rule);
        self.check_positive(&mut check);
        faults
    }

    fn check_positive(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        for (value, key) in [
            (self.connect_deadline_seconds, "connect_deadline_seconds"),
            (self.request_timeout_seconds, "request_timeout_seconds"),
            (self.ack_timeout_ms, "ack_timeout_ms"),
            (self.manifest_max_age_days, "manifest_max_age_days"),
            (self.manifest_history, "manifest_history"),
            (self.manifest_max_object_bytes, "manifest_max_object_bytes"),
            (self.dead_max_age_days, "dead_max_age_days"),
            (self.reader_stall_seconds, "reader_stall_seconds"),
            (self.reader_batch_messages as u64, "reader_batch_messages"),
        ] {
            check(value > 0, key, "must be above 0");
        }
        for (value, key) in [
            (self.input_max_bytes, "input_max_bytes"),
            (self.output_max_bytes, "output_max_bytes"),
            (self.dead_max_bytes, "dead_max_bytes"),
            (self.reader_batch_bytes as u64, "reader_batch_bytes"),
        ] {
            let holds = value >= 2 * MIB && i64::try_from(value).is_ok();
            let rule = "must be at least 2097152, room for one message of the largest size";
            check(holds, key, rule);
        }
    }

    /// Longest wait for one answer of the JetStream API.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    /// Longest wait for one publish acknowledgement.
    pub fn ack_timeout(&self) -> Duration {
        Duration::from_millis(self.ack_timeout_ms)
    }

    /// Longest time from an append to its answer.
    pub fn append_deadline(&self) -> Duration {
        Duration::from_millis(self.append_deadline_ms)
    }

    /// Time without a message after which a reader compares its position with the stream's.
    pub fn reader_stall(&self) -> Duration {
        Duration::from_secs(self.reader_stall_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_faults() {
        assert_eq!(BusConfig::default().faults(), Vec::new());
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let config = BusConfig {
            url: "nats://user:secret@one:4222".to_owned(),
            prefix: "Fleet.x".to_owned(),
            partitions: 0,
            replicas: 2,
            frame_max_entries: 513,
            duplicate_window_seconds: 1,
            input_max_bytes: 0,
            key_file: Some("key.pem".into()),
            ..BusConfig::default()
        };
        let keys: Vec<_> = config.faults().into_iter().map(|fault| fault.key).collect();
        assert_eq!(
            keys,
            [
                "prefix",
                "url",
                "partitions",
                "replicas",
                "cert_file",
                "frame_max_entries",
                "duplicate_window_seconds",
                "input_max_bytes"
            ]
        );
    }
}
