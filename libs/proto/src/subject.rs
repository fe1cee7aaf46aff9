//! Partitions, and the names of streams, subjects and buckets.
//!
//! Source: docs/wire-protocol.md, subjects.

use std::fmt::Write as _;

use crate::entry::EntryBody;
use crate::id::{ChannelName, RolloutId};

/// Largest number of partitions a fleet may have.
pub const MAX_PARTITIONS: u16 = 256;

/// One of the fleet's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u16);

impl Partition {
    /// The partition with this number, from 0.
    pub fn new(number: u16) -> Self {
        Self(number)
    }

    /// The partition of a channel: FNV-1a 32 of its name modulo the count, as in NATS' own
    /// `partition()`.
    ///
    /// # Panics
    /// When `count` is 0.
    pub fn of(channel: &ChannelName, count: u16) -> Self {
        assert!(count > 0, "a fleet has at least one partition");
        let hash = channel
            .as_str()
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
            });
        Self((hash % u32::from(count)) as u16)
    }

    /// All partitions of a fleet.
    pub fn all(count: u16) -> impl Iterator<Item = Self> {
        (0..count).map(Self)
    }

    /// The number, from 0.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// Every name on the bus, below one prefix (`fleet` in production, another one per test).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names below `prefix`, which must be one lower-case subject token.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// The prefix itself.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn upper(&self) -> String {
        self.prefix.to_ascii_uppercase().replace('-', "_")
    }

    /// Input stream of a partition.
    pub fn input_stream(&self, partition: Partition) -> String {
        format!("{}_IN_{partition}", self.upper())
    }

    /// Output stream of a partition.
    pub fn output_stream(&self, partition: Partition) -> String {
        format!("{}_OUT_{partition}", self.upper())
    }

    /// Stream of manifest announcements.
    pub fn manifest_stream(&self) -> String {
        format!("{}_MANIFEST", self.upper())
    }

    /// Stream of dead letters.
    pub fn dead_stream(&self) -> String {
        format!("{}_DEAD", self.upper())
    }

    /// Everything of a partition's input stream.
    pub fn input_wildcard(&self, partition: Partition) -> String {
        format!("{}.in.{partition}.>", self.prefix)
    }

    /// The publish subject of an entry.
    pub fn input(&self, partition: Partition, body: &EntryBody) -> String {
        // Enough capacity for usual names.
        let mut subject = String::with_capacity(128);
        write!(subject, "{}.in.{partition}.", self.prefix).expect(WRITTEN);
        subject.push_str(body.class());
        subject.push('.');
        match body {
            EntryBody::HostEvent { rollout_id, .. }
            | EntryBody::RecoveryCandidate { rollout_id, .. } => {
                push_rollout(&mut subject, rollout_id);
            }
            EntryBody::Plan { action, .. } => match action.rollout_id() {
                Some(rollout_id) => push_rollout(&mut subject, rollout_id),
                // Escaping a channel never yields a lone `%`, so no channel collides with this name.
                None => subject.push_str("%.%"),
            },
            EntryBody::Operator { .. } => {
                let channel = body
                    .channel()
                    .expect("every operator command names a channel");
                push_escaped(&mut subject, channel.as_str());
            }
        }
        subject
    }

    /// The class of entries that a subject of an input stream is for; `None` for other subjects.
    pub fn input_class(subject: &str) -> Option<&str> {
        subject.split('.').nth(3)
    }

    /// Everything of a partition's output stream.
    pub fn output_wildcard(&self, partition: Partition) -> String {
        format!("{}.out.{partition}.*", self.prefix)
    }

    /// The exclusive subject of one writer of a partition's output stream.
    pub fn output(&self, partition: Partition, writer: &str) -> String {
        format!("{}.out.{partition}.{}", self.prefix, escape(writer))
    }

    /// Heartbeat requests to a partition's owner.
    pub fn heartbeat(&self, partition: Partition) -> String {
        format!("{}.hb.{partition}", self.prefix)
    }

    /// Bulk last-seen times.
    pub fn liveness(&self) -> String {
        format!("{}.liveness", self.prefix)
    }

    /// Everything of the manifest stream.
    pub fn manifest_wildcard(&self) -> String {
        format!("{}.manifest.>", self.prefix)
    }

    /// The current release.
    pub fn manifest_fleet(&self) -> String {
        format!("{}.manifest.fleet", self.prefix)
    }

    /// One rollout manifest.
    pub fn manifest_rollout(&self, rollout_id: &RolloutId) -> String {
        let mut subject = format!("{}.manifest.rollout.", self.prefix);
        push_rollout(&mut subject, rollout_id);
        subject
    }

    /// The dead letter of a service about a message of a stream.
    pub fn dead(&self, service: &str, stream: &str, seq: u64) -> String {
        let (service, stream) = (escape(service), escape(stream));
        format!("{}.dead.{service}.{stream}.{seq}", self.prefix)
    }

    /// All dead letters of a service.
    pub fn dead_of(&self, service: &str) -> String {
        format!("{}.dead.{}.>", self.prefix, escape(service))
    }

    /// Everything of the dead-letter stream.
    pub fn dead_wildcard(&self) -> String {
        format!("{}.dead.>", self.prefix)
    }

    /// Key-value bucket of the fleet's constants.
    pub fn meta_bucket(&self) -> String {
        format!("{}-meta", self.prefix)
    }

    /// Key-value bucket of leases.
    pub fn lease_bucket(&self) -> String {
        format!("{}-leases", self.prefix)
    }

    /// Object store of manifest bytes.
    pub fn manifest_bucket(&self) -> String {
        format!("{}-manifests", self.prefix)
    }

    /// Object store of checkpoints.
    pub fn checkpoint_bucket(&self) -> String {
        format!("{}-checkpoints", self.prefix)
    }
}

/// Escapes a text as a subject token: `.`, `*`, `>`, white space, control characters, non-ASCII bytes
/// and `%` become `%XX`; only the empty text becomes a lone `%`.
pub fn escape(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    push_escaped(&mut token, text);
    token
}

const WRITTEN: &str = "writing to a String cannot fail";

fn push_escaped(subject: &mut String, text: &str) {
    fn is_plain(byte: u8) -> bool {
        byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'>' | b'%')
    }
    if text.is_empty() {
        subject.push('%');
    } else if text.bytes().all(is_plain) {
        subject.push_str(text);
    } else {
        for byte in text.bytes() {
            if is_plain(byte) {
                subject.push(char::from(byte));
            } else {
                write!(subject, "%{byte:02X}").expect(WRITTEN);
            }
        }
    }
}

/// A kind and the two parts of a rollout's name.
fn push_rollout(subject: &mut String, rollout_id: &RolloutId) {
    let (channel, target_ref) = rollout_id.parts();
    push_escaped(subject, channel);
    subject.push('.');
    push_escaped(subject, target_ref);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_tokens_have_no_subject_syntax() {
        assert_eq!(escape("stable"), "stable");
        assert_eq!(escape("a.b *>%"), "a%2Eb%20%2A%3E%25");
        assert_eq!(escape(""), "%");
        assert_eq!(escape("\0"), "%00");
    }

    #[test]
    fn partitions_follow_fnv_1a_32() {
        // Reference values of FNV-1a 32: "" 0x811c9dc5, "a" 0xe40c292c, "foobar" 0xbf9cf968.
        assert_eq!(Partition::of(&ChannelName::from("a"), 256).number(), 0x2c);
        assert_eq!(
            Partition::of(&ChannelName::from("foobar"), 256).number(),
            0x68
        );
    }
}
