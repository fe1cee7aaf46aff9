//! The bus against a real server: what is acknowledged is there once, in order, and only the owner
//! writes.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod checkpoints_and_trimming;
mod frame_encoding;
mod group_commit;
mod lease;
mod output_fence;
mod replicated_streams;
mod stored_objects;
mod stream_layout;
mod stream_reader;
mod tls_and_credentials;
mod unstored_messages;
mod user_rights;

use std::time::Duration;

use chrono::Utc;
use nixfleet_bus::{Bus, BusConfig, Message, Reader, SequenceFloors};
use nixfleet_harness::proxy::Proxy;
use nixfleet_harness::unique_prefix;
use nixfleet_harness::{ports, shared_nats};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody};

/// Timeout of a condition that should hold soon.
const SOON: Duration = Duration::from_secs(30);

/// Configuration with two small partitions below a prefix.
fn config(url: &str, prefix: &str) -> BusConfig {
    BusConfig {
        url: url.to_owned(),
        prefix: prefix.to_owned(),
        partitions: 2,
        ack_timeout_ms: 500,
        append_deadline_ms: 20_000,
        input_max_bytes: 64 * 1024 * 1024,
        output_max_bytes: 64 * 1024 * 1024,
        dead_max_bytes: 2 * 1024 * 1024,
        ..BusConfig::default()
    }
}

/// A connected bus with its layout on the shared server.
async fn bus(name: &str) -> Bus {
    ready(config(&shared_nats().unwrap().url(), &unique_prefix(name))).await
}

async fn ready(config: BusConfig) -> Bus {
    let bus = Bus::connect(config, "test/one").await.unwrap();
    bus.ensure_layout(&SequenceFloors::default()).await.unwrap();
    bus
}

/// A connection to the shared server through a proxy that can stall or break it.
async fn connect_through_proxy(config: &BusConfig) -> (BusConfig, Proxy) {
    let server = ports::local(shared_nats().unwrap().port());
    let proxy = Proxy::start(server).await.unwrap();
    let through = BusConfig {
        url: proxy.proxied_url(&config.url),
        ..config.clone()
    };
    (through, proxy)
}

/// Another process on the same fleet.
async fn second(bus: &Bus) -> Bus {
    Bus::connect(bus.config().clone(), "test/two")
        .await
        .unwrap()
}

fn p0() -> Partition {
    Partition::new(0)
}

fn p1() -> Partition {
    Partition::new(1)
}

/// An entry that can be recognised: the closure is the number.
fn entry(rollout: &str, host: &str, number: usize) -> Entry {
    entry_with_closure(rollout, host, &number.to_string())
}

fn entry_with_closure(rollout: &str, host: &str, closure: &str) -> Entry {
    Entry::new(
        Utc::now(),
        EntryBody::RecoveryCandidate {
            rollout_id: rollout.parse().unwrap(),
            hostname: host.parse().unwrap(),
            current_closure: closure.into(),
        },
    )
}

/// Reads exactly `count` messages; later ones stay with the reader.
async fn read(reader: &mut Reader, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    let all = async {
        while messages.len() < count {
            let missing = count - messages.len();
            messages.extend(reader.next_batch(missing).await.unwrap());
        }
    };
    tokio::time::timeout(SOON, all)
        .await
        .expect("the messages come soon");
    messages
}
