//! Who fills an input log: a sample of its messages, by the writer of their entries.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use nixfleet_bus::{Bus, LogUsage, Message, decode_input};
use nixfleet_proto::{EntryBody, Producer};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

/// Messages of a sample: a source that has a tenth of the bytes is in it with near certainty.
const SAMPLE: u64 = 48;
/// Messages that are read at once.
const AT_ONCE: usize = 8;
/// Sources that are told.
const SOURCES_MAX: usize = 5;

/// A writer of entries and its share of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSource {
    /// The name of a host, or `planner`, `recovery`, `operators`, `unreadable`, in parentheses.
    source: String,
    /// Of the bytes of the sample, rounded down.
    percent: u64,
}

/// The sources of most bytes of an input log, first the largest; empty when the log cannot be read in time.
pub async fn sources(
    bus: &Bus,
    (log, usage): (&str, &LogUsage),
    deadline: Instant,
) -> Vec<LogSource> {
    let reads = sample(usage).map(|seq| timeout_at(deadline, bus.message_at(log, seq)));
    // Collected first: a stream over a borrowing closure is not `Send`.
    let reads: Vec<_> = reads.collect();
    let messages = stream::iter(reads).buffer_unordered(AT_ONCE);
    let mut bytes = BTreeMap::new();
    messages
        .for_each(|read| {
            if let Ok(Ok(Some(message))) = read {
                count(&message, &mut bytes);
            }
            std::future::ready(())
        })
        .await;
    shares(bytes)
}

/// Evenly spaced sequences of a log.
fn sample(usage: &LogUsage) -> impl Iterator<Item = u64> + use<> {
    let first = usage.first_seq;
    let span = usage
        .last_seq
        .checked_sub(first)
        .map_or(0, |behind| behind.saturating_add(1));
    let count = span.min(SAMPLE);
    (0..count).map(move |number| {
        let offset = u128::from(span) * u128::from(number) / u128::from(count);
        first + u64::try_from(offset).unwrap_or(0)
    })
}

/// Shares the stored bytes of a message among the writers of its entries, by the size of the entries.
fn count(message: &Message, bytes: &mut BTreeMap<String, u64>) {
    let Ok(frame) = decode_input(message) else {
        *bytes.entry("(unreadable)".to_owned()).or_default() += message.stored_bytes as u64;
        return;
    };
    let sizes = frame.entries.iter().map(|entry| {
        let size = serde_json::to_vec(entry).map_or(0, |json| json.len());
        (source(&entry.body), size as u64)
    });
    let sizes: Vec<_> = sizes.collect();
    let total: u64 = sizes.iter().map(|(_, size)| size).sum();
    for (source, size) in sizes {
        let share = message.stored_bytes as u64 * size / total.max(1);
        *bytes.entry(source).or_default() += share;
    }
}

fn source(body: &EntryBody) -> String {
    match body {
        EntryBody::HostEvent {
            hostname,
            producer: Producer::Agent,
            ..
        } => hostname.to_string(),
        EntryBody::HostEvent {
            producer: Producer::Recovery,
            ..
        }
        | EntryBody::RecoveryCandidate { .. } => "(recovery)".to_owned(),
        EntryBody::Plan { .. } => "(planner)".to_owned(),
        EntryBody::Operator { .. } => "(operators)".to_owned(),
    }
}

fn shares(bytes: BTreeMap<String, u64>) -> Vec<LogSource> {
    let total: u64 = bytes.values().sum();
    let mut sources: Vec<(String, u64)> = bytes.into_iter().collect();
    sources.sort_by(|(a, a_bytes), (b, b_bytes)| b_bytes.cmp(a_bytes).then(a.cmp(b)));
    sources.truncate(SOURCES_MAX);
    let sources = sources.into_iter().map(|(source, bytes)| LogSource {
        source,
        percent: bytes * 100 / total.max(1),
    });
    sources.collect()
}

impl LogSource {
    /// The source with its share, for a message.
    pub fn text(&self) -> String {
        format!("{} {} %", self.source, self.percent)
    }
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::Timestamp;

    use super::*;

    fn usage(first_seq: u64, last_seq: u64) -> LogUsage {
        LogUsage {
            created: Timestamp::UNIX_EPOCH,
            first_seq,
            last_seq,
            messages: last_seq
                .checked_sub(first_seq)
                .map_or(0, |between| between.saturating_add(1)),
            bytes: 0,
            max_bytes: 0,
        }
    }

    #[test]
    fn a_sample_is_spread_over_the_log() {
        let of = |first, last| sample(&usage(first, last)).collect::<Vec<u64>>();
        assert_eq!(of(7, 9), [7, 8, 9]);
        assert_eq!(of(5, 4), [0_u64; 0]);
        let wide = of(1, 48_000);
        assert_eq!((wide.len(), wide[0], wide[47]), (48, 1, 47_001));
        assert_eq!(of(u64::MAX, u64::MAX), [u64::MAX]);
    }

    #[test]
    fn the_largest_sources_come_first() {
        let bytes = [
            ("b", 10),
            ("a", 10),
            ("c", 80),
            ("d", 1),
            ("e", 1),
            ("f", 1),
        ];
        let bytes = bytes.map(|(name, bytes)| (name.to_owned(), bytes));
        let shares = shares(bytes.into());
        let texts: Vec<_> = shares.iter().map(LogSource::text).collect();
        assert_eq!(texts, ["c 77 %", "a 9 %", "b 9 %", "d 0 %", "e 0 %"]);
    }
}
