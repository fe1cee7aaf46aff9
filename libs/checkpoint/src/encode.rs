//! Encoding the rows of a partition as a checkpoint.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use nixfleet_proto::snapshot::{HostRow, PartitionSnapshot, RolloutRow};
use nixfleet_proto::{CheckpointRef, Hostname, RolloutId, Timestamp};
use serde::Serialize;

use crate::format::{Header, HostLine, Line, RolloutLine};
use crate::{VERSION, sha256};

/// Compression level; higher levels take several times as long and save a tenth.
const LEVEL: i32 = 1;

/// Identity of a checkpoint, besides its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointIdentity {
    /// Number of the partition.
    pub partition: u16,
    /// Creation time of the output stream.
    pub output_created: Timestamp,
    /// Hash of the state of the rows.
    pub state_hash: String,
}

/// An encoded checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedCheckpoint {
    /// Name and position.
    pub reference: CheckpointRef,
    /// The object to store.
    pub bytes: Vec<u8>,
}

/// Why rows cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum EncodeError {
    #[error("the rows have no cursor")]
    NoCursor,
    #[error("the row of rollout {0} has no pinned terms")]
    NotPinned(RolloutId),
    #[error("host {1} is not both pinned and in the rows of rollout {0}")]
    OtherHosts(RolloutId, Hostname),
    #[error("the rows cannot be compressed")]
    Compress(#[from] std::io::Error),
    #[error("a row cannot be serialised as JSON")]
    Json(#[from] serde_json::Error),
}

/// Encodes all rows of a partition.
pub fn encode(
    rows: &PartitionSnapshot,
    identity: CheckpointIdentity,
) -> Result<EncodedCheckpoint, EncodeError> {
    let cursor = rows.cursor.clone().ok_or(EncodeError::NoCursor)?;
    let (out_seq, input) = (cursor.out_seq, cursor.input);
    let mut compressor = zstd::Encoder::new(Vec::new(), LEVEL)?;
    compressor.include_checksum(true)?;
    let mut lines = Lines {
        compressor,
        buffer: Vec::new(),
        count: 0,
    };
    lines.write(&Header {
        v: VERSION,
        partition: identity.partition,
        cursor,
        output_created: identity.output_created,
        state_hash: identity.state_hash,
    })?;
    lines.count = 0;
    write_rollouts(rows, &mut lines)?;
    for row in &rows.quarantines {
        lines.write(&Line::Quarantine(row.clone()))?;
    }
    for row in &rows.probe_failures {
        lines.write(&Line::ProbeFailure(row.clone()))?;
    }
    for row in &rows.blocks {
        lines.write(&Line::Block(row.clone()))?;
    }
    let end = Line::End { lines: lines.count };
    lines.write(&end)?;
    let bytes = lines.compressor.finish()?;
    Ok(EncodedCheckpoint {
        reference: CheckpointRef {
            hash: sha256(&bytes),
            bytes: bytes.len() as u64,
            out_seq,
            input,
        },
        bytes,
    })
}

struct Lines {
    compressor: zstd::Encoder<'static, Vec<u8>>,
    buffer: Vec<u8>,
    count: u64,
}

impl Lines {
    fn write(&mut self, line: &impl Serialize) -> Result<(), EncodeError> {
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, line)?;
        self.buffer.push(b'\n');
        self.compressor.write_all(&self.buffer)?;
        self.count += 1;
        Ok(())
    }
}

fn write_rollouts(rows: &PartitionSnapshot, lines: &mut Lines) -> Result<(), EncodeError> {
    let mut hosts: BTreeMap<&RolloutId, Vec<&HostRow>> = BTreeMap::new();
    for row in &rows.hosts {
        hosts.entry(&row.record.rollout_id).or_default().push(row);
    }
    for row in &rows.rollouts {
        let mut hosts = hosts.remove(&row.record.rollout_id).unwrap_or_default();
        hosts.sort_by(|a, b| a.record.hostname.cmp(&b.record.hostname));
        write_rollout(row, &hosts, lines)?;
    }
    match hosts.into_values().flatten().next() {
        Some(stranger) => Err(other_hosts(&stranger.record.rollout_id, stranger)),
        None => Ok(()),
    }
}

fn write_rollout(
    row: &RolloutRow,
    hosts: &[&HostRow],
    lines: &mut Lines,
) -> Result<(), EncodeError> {
    let rollout_id = &row.record.rollout_id;
    let pinned = row.pinned.as_ref();
    let pinned = pinned.ok_or_else(|| EncodeError::NotPinned(rollout_id.clone()))?;
    lines.write(&Line::Rollout(RolloutLine {
        record: row.record.clone(),
        manifest_hash: row.manifest_hash.clone(),
        position: row.position,
        on_health_failure: pinned.on_health_failure,
        waves: pinned.waves.clone(),
        disruption_budgets: pinned.disruption_budgets.clone(),
        hosts: hosts.len(),
    }))?;
    let mut pinned = pinned.host_set.iter();
    for host in hosts {
        let place = pinned.next();
        let place = place.filter(|place| place.hostname == host.record.hostname);
        let place = place.ok_or_else(|| other_hosts(rollout_id, host))?;
        lines.write(&Line::Host(HostLine {
            record: Arc::clone(&host.record),
            wave: place.wave_index,
            staged: place.staged,
            queued: host.queued,
            candidate: host.recovery_candidate.is_some(),
            position: host.position,
        }))?;
    }
    match pinned.next() {
        Some(missing) => {
            let hostname = missing.hostname.clone();
            Err(EncodeError::OtherHosts(rollout_id.clone(), hostname))
        }
        None => Ok(()),
    }
}

fn other_hosts(rollout_id: &RolloutId, host: &HostRow) -> EncodeError {
    EncodeError::OtherHosts(rollout_id.clone(), host.record.hostname.clone())
}
