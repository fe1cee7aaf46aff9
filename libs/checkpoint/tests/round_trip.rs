//! Encoded checkpoints decode to the same rows, and other bytes are rejected.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use sha2::Digest as _;

use nixfleet_checkpoint::{
    Checkpoint, CheckpointError, CheckpointIdentity, EncodedCheckpoint, VERSION, encode,
};
use nixfleet_core::partition::{PartitionState, PinnedSet};
use nixfleet_proto::host::{FailedControl, NewHost};
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::snapshot::{
    BlockRow, Cause, Cursor, HostRow, PartitionSnapshot, ProbeFailureRow, QuarantineRow, RolloutRow,
};
use nixfleet_proto::{
    CheckpointRef, Gate, Hold, HostRecord, InputMark, LAYOUT_VERSION, Minutes, OnHealthFailure,
    Pinned, Position, RolloutRecord, RolloutState, Timestamp,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 5).unwrap()
}

fn cause(seq: u64) -> Cause {
    Cause {
        position: Position { seq, index: 3 },
        at: at(seq as i64),
    }
}

fn host(rollout: &str, name: &str, seq: u64) -> HostRow {
    let rollout_id: nixfleet_proto::RolloutId = rollout.parse().unwrap();
    let record = HostRecord::pending(NewHost {
        channel: rollout_id.channel(),
        rollout_id,
        hostname: name.parse().unwrap(),
        target_closure: format!("closure-{name}").into(),
        soak_minutes: Minutes::ZERO,
        dispatched_at: at(1),
    });
    HostRow {
        recovery_candidate: (name == "b").then(|| record.target_closure.clone()),
        record: Arc::new(record),
        queued: (name == "a").then(|| cause(7)),
        position: Position { seq, index: 0 },
    }
}

fn rollout(id: &str, hosts: &[&str]) -> RolloutRow {
    let rollout_id: nixfleet_proto::RolloutId = id.parse().unwrap();
    let pinned = |(wave, name): (usize, &&str)| PinnedHost {
        hostname: name.parse().unwrap(),
        wave_index: wave as u32,
        target_closure: format!("closure-{name}").into(),
        staged: wave < 2,
    };
    RolloutRow {
        record: RolloutRecord {
            channel: rollout_id.channel(),
            target_ref: rollout_id.target_ref(),
            rollout_id,
            state: RolloutState::Active,
            current_wave: 0,
            opened_at: at(1),
            terminal_at: None,
            superseded_at: None,
            superseded_by: None,
            waived_hosts: [hosts[0].parse().unwrap()].into(),
        },
        manifest_hash: format!("manifest-{id}").as_str().into(),
        pinned: Some(Arc::new(Pinned {
            on_health_failure: OnHealthFailure::RollbackAndHalt,
            waves: vec![PinnedWave {
                soak_minutes: Minutes::from_minutes(3),
            }],
            host_set: hosts.iter().enumerate().map(pinned).collect(),
            disruption_budgets: Vec::new(),
        })),
        position: Position { seq: 4, index: 1 },
    }
}

fn rows() -> PartitionSnapshot {
    PartitionSnapshot {
        cursor: Some(Cursor {
            out_seq: 90,
            input: Some(InputMark {
                seq: 40,
                index: 1,
                of: 3,
            }),
            input_msg_id: Some("ingest/40".to_owned()),
            epoch: 6,
            leader_epoch: 5,
            clock: Some(at(99)),
            ..Cursor::empty(at(0))
        }),
        rollouts: vec![
            rollout("edge@1", &["a", "b", "c"]),
            rollout("stable@2", &["a"]),
        ],
        hosts: vec![
            host("edge@1", "a", 2),
            host("edge@1", "b", 9),
            host("edge@1", "c", 2),
            host("stable@2", "a", 3),
        ],
        quarantines: vec![QuarantineRow {
            channel: "edge".into(),
            closure_hash: "bad".into(),
            cause: cause(8),
        }],
        probe_failures: vec![ProbeFailureRow {
            rollout_id: "edge@1".parse().unwrap(),
            hostname: "a".into(),
            probe_name: "http".into(),
            control: FailedControl {
                control_id: Some("c1".to_owned()),
                framework: None,
            },
            cause: cause(6),
        }],
        blocks: vec![BlockRow {
            rollout_id: "edge@1".parse().unwrap(),
            wave: 0,
            gate: Gate::Halt,
            holds: vec![Hold {
                reason: "halted".to_owned(),
                hosts: None,
                cause: None,
            }],
            cause: cause(5),
        }],
    }
}

fn identity() -> CheckpointIdentity {
    CheckpointIdentity {
        partition: 3,
        output_created: at(2),
        state_hash: "state".to_owned(),
    }
}

fn encoded() -> EncodedCheckpoint {
    encode(&rows(), identity()).unwrap()
}

#[test]
fn rows_round_trip() {
    let encoded = encoded();
    let read = Checkpoint::decode(&encoded.bytes, 3, &encoded.reference).unwrap();
    assert_eq!(read.rows, rows());
    assert_eq!(read.state_hash, "state");
    assert_eq!(encoded.reference.out_seq, 90);
    assert_eq!(encoded.reference.bytes, encoded.bytes.len() as u64);
    // Equal rows have the same name, whoever encodes them.
    assert_eq!(encode(&rows(), identity()).unwrap(), encoded);
}

#[test]
fn a_frozen_state_keeps_its_hash() {
    let state = PartitionState::restore(rows(), &PinnedSet::new()).unwrap();
    let frozen = state.freeze();
    let rows = frozen.rows(rows().cursor.unwrap());
    let encoded = encode(&rows, identity()).unwrap();
    let read = Checkpoint::decode(&encoded.bytes, 3, &encoded.reference).unwrap();
    let restored = PartitionState::restore(read.rows, &PinnedSet::new()).unwrap();
    assert_eq!(restored, state);
    assert_eq!(restored.hash(), frozen.hash());
}

#[test]
fn checkpoints_and_state_hashes_keep_their_bytes() {
    // What the compressor makes of the lines may change.
    let lines = zstd::decode_all(&*encoded().bytes).unwrap();
    nixfleet_encodings::check("checkpoint", VERSION, [("every-line", lines)]);
    let state = PartitionState::restore(rows(), &PinnedSet::new()).unwrap();
    let hash = state.freeze().hash();
    nixfleet_encodings::check("state-hash", LAYOUT_VERSION, [("every-row", hash)]);
}

#[test]
fn bytes_with_another_hash_are_rejected() {
    let EncodedCheckpoint { reference, bytes } = encoded();
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x40;
        let read = Checkpoint::decode(&damaged, 3, &reference);
        assert!(matches!(read, Err(CheckpointError::OtherBytes { .. })));
    }
    for length in 0..bytes.len() {
        let read = Checkpoint::decode(&bytes[..length], 3, &reference);
        assert!(matches!(read, Err(CheckpointError::OtherBytes { .. })));
    }
}

/// The correct name of any bytes, as from a faulty or hostile writer.
fn named(bytes: &[u8]) -> CheckpointRef {
    CheckpointRef {
        hash: hex::encode(sha2::Sha256::digest(bytes)),
        bytes: bytes.len() as u64,
        ..encoded().reference
    }
}

fn fault(text: &str) -> String {
    let bytes = zstd::encode_all(text.as_bytes(), 1).unwrap();
    Checkpoint::decode(&bytes, 3, &named(&bytes))
        .unwrap_err()
        .to_string()
}

#[test]
fn malformed_bytes_are_rejected_with_the_faulty_line() {
    let text = zstd::decode_all(&*encoded().bytes).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = |place: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != place);
        kept.map(|(_, line)| format!("{line}\n"))
            .collect::<String>()
    };
    let last = lines.len() - 1;
    for (text, expected) in [
        (String::new(), "line 1 is malformed: the line does not end"),
        ("{}\n".to_owned(), "line 1 is malformed: missing field"),
        (without(last), "the line does not end"),
        (without(last - 1), "lines instead of"),
        (
            without(1),
            "line 2 is malformed: a host without its rollout",
        ),
        (without(2), "line 5 is malformed: a host is missing"),
        (text.replacen("\"v\":1", "\"v\":9", 1), "version 9"),
        (
            text.replacen("\"partition\":3", "\"partition\":4", 1),
            "the checkpoint is of partition 4 at output sequence 90",
        ),
        (
            text.replacen("\"outSeq\":90", "\"outSeq\":91", 1),
            "the checkpoint is of partition 3 at output sequence 91",
        ),
        (text.trim_end().to_owned(), "the line does not end"),
    ] {
        let found = fault(&text);
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
    let bytes = b"no zstd";
    let read = Checkpoint::decode(bytes, 3, &named(bytes));
    assert!(matches!(read, Err(CheckpointError::Decompress(_))));
}

#[test]
fn a_checkpoint_is_accepted_only_for_its_own_logs() {
    let encoded = encoded();
    let read = Checkpoint::decode(&encoded.bytes, 3, &encoded.reference).unwrap();
    assert!(read.check_logs(at(0), at(2), 91).is_ok());
    assert!(read.check_logs(at(0), at(2), 1).is_ok());
    let other_input = read.check_logs(at(1), at(2), 1);
    assert!(matches!(other_input, Err(CheckpointError::OtherStreams)));
    let other_output = read.check_logs(at(0), at(3), 1);
    assert!(matches!(other_output, Err(CheckpointError::OtherStreams)));
    let trimmed = read.check_logs(at(0), at(2), 92);
    assert!(matches!(trimmed, Err(CheckpointError::Trimmed { .. })));
}

#[test]
fn inconsistent_rows_are_not_encoded() {
    let mut without_pinned = rows();
    without_pinned.rollouts[0].pinned = None;
    let mut stranger = rows();
    stranger.hosts.push(host("gone@1", "a", 1));
    let mut missing = rows();
    missing.hosts.remove(1);
    let mut no_cursor = rows();
    no_cursor.cursor = None;
    for rows in [without_pinned, stranger, missing, no_cursor] {
        assert!(encode(&rows, identity()).is_err());
    }
}
