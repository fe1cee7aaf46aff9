//! Small rollouts to write and read.

use std::sync::Arc;

use chrono::{SubsecRound as _, TimeDelta, TimeZone, Utc};
use nixfleet_harness::Database;
use nixfleet_proto::minutes::Minutes;
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::snapshot::{Cause, Cursor, Origin};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    CheckpointRef, Checkpoints, ClosureHash, HostRecord, Hostname, InputMark, ManifestHash,
    OnHealthFailure, Pinned, Position, RolloutId, RolloutRecord, RolloutState, Timestamp,
};
use nixfleet_store::{DatabaseConfig, HostChange, OpenedRollout, Stamp, Store, TurnRows};

pub fn partition() -> Partition {
    Partition::new(3)
}

/// A migrated store on a new database.
pub async fn store(name: &str) -> (Store, Database) {
    let database = nixfleet_harness::shared_postgres()
        .unwrap()
        .create_database(name)
        .await
        .unwrap();
    let store = connect(&database);
    store.migrate().await.unwrap();
    (store, database)
}

pub fn connect(database: &Database) -> Store {
    let config = DatabaseConfig {
        url: database.url.clone(),
        pool_size: 4,
        ..DatabaseConfig::default()
    };
    Store::connect(&config).unwrap()
}

pub async fn raw(database: &Database) -> tokio_postgres::Client {
    raw_at(&database.url).await
}

pub async fn raw_at(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("SET search_path = nixfleet")
        .await
        .unwrap();
    client
}

/// Seconds after a fixed time that is not a whole number of microseconds.
pub fn at(seconds: i64) -> Timestamp {
    Utc.timestamp_opt(1_700_000_000, 123_456_789).unwrap() + TimeDelta::seconds(seconds)
}

pub fn stamp(seq: u64) -> Stamp {
    Stamp {
        position: Position { seq, index: 7 },
        at: at(seq as i64),
        traceparent: Some(format!("00-{seq:032x}-{seq:016x}-01")),
    }
}

pub fn cursor(out_seq: u64) -> Cursor {
    Cursor {
        out_seq,
        input: Some(InputMark {
            seq: out_seq * 2,
            index: 1,
            of: 9,
        }),
        input_msg_id: Some(format!("instance-{out_seq}")),
        stream_created: at(0),
        epoch: u64::MAX,
        leader_epoch: u64::MAX - 1,
        clock: Some(at(out_seq as i64)),
        origin: Origin {
            own: out_seq,
            owner: 1,
        },
        checkpoints: Checkpoints {
            last: Some(CheckpointRef {
                hash: "c0ffee".to_owned(),
                bytes: u64::MAX,
                out_seq,
                input: None,
            }),
            previous: None,
        },
    }
}

/// The causing entry of a stamp, with its time as a column stores it.
pub fn cause(stamp: &Stamp) -> Cause {
    Cause {
        position: stamp.position,
        at: stamp.at.trunc_subsecs(6),
    }
}

pub fn rollout_id(text: &str) -> RolloutId {
    text.parse().unwrap()
}

pub fn rollout_record(id: &RolloutId) -> RolloutRecord {
    RolloutRecord {
        rollout_id: id.clone(),
        channel: id.channel(),
        target_ref: id.target_ref(),
        state: RolloutState::Active,
        current_wave: 0,
        opened_at: at(0),
        terminal_at: None,
        superseded_at: None,
        superseded_by: None,
        waived_hosts: Default::default(),
    }
}

/// A rollout with hosts `h0000000`…; odd ones are in wave 1.
pub fn opened(id: &RolloutId, host_count: u32) -> OpenedRollout {
    let hosts = (0..host_count).map(|number| PinnedHost {
        hostname: hostname(number),
        wave_index: number % 2,
        target_closure: ClosureHash::from("new"),
        staged: true,
    });
    let wave = |minutes| PinnedWave {
        soak_minutes: Minutes::from_minutes(minutes),
    };
    OpenedRollout {
        record: rollout_record(id),
        manifest_hash: ManifestHash::from("00ff"),
        pinned: Arc::new(Pinned {
            on_health_failure: OnHealthFailure::RollbackAndHalt,
            waves: vec![wave(5), wave(30)],
            host_set: hosts.collect(),
            disruption_budgets: Vec::new(),
        }),
        stamp: stamp(1),
    }
}

pub fn hostname(number: u32) -> Hostname {
    format!("h{number:07}").parse::<Hostname>().unwrap()
}

pub fn pending(id: &RolloutId, number: u32) -> HostRecord {
    let opened = opened(id, number + 1);
    let mut records = opened.pinned.pending_hosts(id, opened.stamp.at);
    records.nth(number as usize).unwrap()
}

pub fn opening(id: &RolloutId, host_count: u32) -> TurnRows {
    TurnRows {
        opened: vec![opened(id, host_count)],
        ..TurnRows::default()
    }
}

pub fn host_change(record: HostRecord, seq: u64) -> TurnRows {
    let key = (record.rollout_id.clone(), record.hostname.clone());
    let change = HostChange {
        record: record.into(),
        stamp: stamp(seq),
    };
    TurnRows {
        hosts: [(key, change)].into(),
        ..TurnRows::default()
    }
}
