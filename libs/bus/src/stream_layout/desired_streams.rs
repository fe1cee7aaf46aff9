//! The streams that a fleet needs.
//!
//! Logs of partitions are trimmed by need and never by age: an old message that no checkpoint covers is
//! still needed.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use nixfleet_proto::subject::{Names, Partition};

use crate::config::BusConfig;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn streams(config: &BusConfig, names: &Names) -> Vec<Config> {
    let mut streams = Vec::new();
    for partition in Partition::all(config.partitions) {
        streams.push(Config {
            max_bytes: bytes(config.input_max_bytes),
            deny_purge: false,
            ..log(
                config,
                names.input_stream(partition),
                names.input_wildcard(partition),
            )
        });
        streams.push(Config {
            max_bytes: bytes(config.output_max_bytes),
            deny_purge: false,
            ..log(
                config,
                names.output_stream(partition),
                names.output_wildcard(partition),
            )
        });
    }
    streams.push(Config {
        max_messages_per_subject: bytes(config.manifest_history),
        max_bytes: -1,
        max_age: days(config.manifest_max_age_days),
        ..log(config, names.manifest_stream(), names.manifest_wildcard())
    });
    streams.push(Config {
        max_bytes: bytes(config.dead_max_bytes),
        max_age: days(config.dead_max_age_days),
        // Undecodable messages must not block anyone: a full stream drops its oldest messages.
        discard: DiscardPolicy::Old,
        ..log(config, names.dead_stream(), names.dead_wildcard())
    });
    streams
}

/// Settings of all streams: a full stream rejects messages, and nobody can delete from the middle.
fn log(config: &BusConfig, name: String, subject: String) -> Config {
    Config {
        name,
        subjects: vec![subject],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: config.replicas,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        duplicate_window: Duration::from_secs(config.duplicate_window_seconds),
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        ..Config::default()
    }
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn days(count: u64) -> Duration {
    DAY.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}
