//! Decoding a checkpoint to the rows of a partition.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use nixfleet_proto::rollout::PinnedHost;
use nixfleet_proto::snapshot::{HostRow, PartitionSnapshot, RolloutRow};
use nixfleet_proto::{CheckpointRef, Pinned, Timestamp, mutation_testing};
use serde::de::DeserializeOwned;

use crate::format::{Header, HostLine, Line, RolloutLine};
use crate::{LINE_BYTES_MAX, VERSION, sha256};

/// A decoded checkpoint whose hash and position are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// All rows of the partition; their cursor has the position in the logs.
    pub rows: PartitionSnapshot,
    /// Creation time of the output stream.
    pub output_created: Timestamp,
    /// Hash of the state of these rows.
    pub state_hash: String,
}

/// Why bytes are not the named checkpoint.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say the same")]
pub enum CheckpointError {
    #[error("the checkpoint is not in the object store")]
    Missing,
    #[error("the checkpoint has the hash {found} instead of the one in its name")]
    OtherBytes { found: String },
    #[error(
        "the checkpoint has format version {found}, this release reads version {VERSION}: upgrade"
    )]
    Version { found: u32 },
    #[error("the checkpoint is of partition {partition} at output sequence {out_seq}")]
    OtherPosition { partition: u16, out_seq: u64 },
    #[error(
        "the checkpoint is of streams that were created at other times: the logs were lost since"
    )]
    OtherStreams,
    #[error("the output log begins at sequence {first}, the checkpoint ends at {out_seq}")]
    Trimmed { first: u64, out_seq: u64 },
    #[error("the checkpoint cannot be decompressed")]
    Decompress(#[source] std::io::Error),
    #[error("line {line} is malformed: {fault}")]
    Malformed {
        /// Number of the line, from 1.
        line: u64,
        fault: String,
    },
}

impl Checkpoint {
    /// Decodes the object that a frame named.
    ///
    /// # Errors
    /// [`CheckpointError`]; the checkpoint before it may be intact.
    pub fn decode(
        bytes: &[u8],
        partition: u16,
        named: &CheckpointRef,
    ) -> Result<Self, CheckpointError> {
        let found = sha256(bytes);
        if found != named.hash && !mutation_testing::is_active("checkpoint-hash-ignored") {
            return Err(CheckpointError::OtherBytes { found });
        }
        let decoder = zstd::Decoder::new(bytes).map_err(CheckpointError::Decompress)?;
        let mut lines = Lines {
            source: BufReader::with_capacity(256 * 1024, decoder),
            buffer: Vec::new(),
            number: 0,
        };
        let header: Header = lines.next()?;
        if header.v != VERSION {
            return Err(CheckpointError::Version { found: header.v });
        }
        let (out_seq, input) = (header.cursor.out_seq, header.cursor.input);
        if header.partition != partition || (out_seq, input) != (named.out_seq, named.input) {
            let partition = header.partition;
            return Err(CheckpointError::OtherPosition { partition, out_seq });
        }
        let mut rows = read_rows(&mut lines)?;
        rows.cursor = Some(header.cursor);
        Ok(Self {
            rows,
            output_created: header.output_created,
            state_hash: header.state_hash,
        })
    }

    /// Checks that these logs continue the checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::OtherStreams`] or [`CheckpointError::Trimmed`].
    pub fn check_logs(
        &self,
        input_created: Timestamp,
        output_created: Timestamp,
        output_first: u64,
    ) -> Result<(), CheckpointError> {
        let cursor = self.rows.cursor.as_ref();
        let created = cursor.map(|cursor| cursor.stream_created);
        if created != Some(input_created) || self.output_created != output_created {
            return Err(CheckpointError::OtherStreams);
        }
        let out_seq = cursor.map_or(0, |cursor| cursor.out_seq);
        if out_seq + 1 < output_first {
            let first = output_first;
            return Err(CheckpointError::Trimmed { first, out_seq });
        }
        Ok(())
    }
}

struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    fn next<T: DeserializeOwned>(&mut self) -> Result<T, CheckpointError> {
        self.buffer.clear();
        self.number += 1;
        let mut line = self.source.by_ref().take(LINE_BYTES_MAX);
        let read = line.read_until(b'\n', &mut self.buffer);
        read.map_err(CheckpointError::Decompress)?;
        if self.buffer.pop() != Some(b'\n') {
            return Err(self.malformed("the line does not end, or is too long"));
        }
        serde_json::from_slice(&self.buffer).map_err(|error| self.malformed(error))
    }

    fn malformed(&self, fault: impl ToString) -> CheckpointError {
        CheckpointError::Malformed {
            line: self.number,
            fault: fault.to_string(),
        }
    }
}

fn read_rows(lines: &mut Lines<impl BufRead>) -> Result<PartitionSnapshot, CheckpointError> {
    let mut rows = PartitionSnapshot::default();
    let mut count = 0;
    loop {
        match lines.next()? {
            Line::Rollout(rollout) => {
                count += read_rollout(rollout, lines, &mut rows)?;
            }
            Line::Host(_) => return Err(lines.malformed("a host without its rollout")),
            Line::Quarantine(row) => rows.quarantines.push(row),
            Line::ProbeFailure(row) => rows.probe_failures.push(row),
            Line::Block(row) => rows.blocks.push(row),
            Line::End { lines: expected } if expected == count => return Ok(rows),
            Line::End { lines: expected } => {
                return Err(lines.malformed(format!("{count} lines instead of {expected}")));
            }
        }
        count += 1;
    }
}

/// Reads the hosts after a rollout and returns their number.
fn read_rollout(
    rollout: RolloutLine,
    lines: &mut Lines<impl BufRead>,
    rows: &mut PartitionSnapshot,
) -> Result<u64, CheckpointError> {
    let mut host_set = Vec::new();
    for _ in 0..rollout.hosts {
        let Line::Host(host) = lines.next()? else {
            return Err(lines.malformed("a host is missing"));
        };
        if host.record.rollout_id != rollout.record.rollout_id {
            return Err(lines.malformed("a host of another rollout"));
        }
        host_set.push(PinnedHost {
            hostname: host.record.hostname.clone(),
            wave_index: host.wave,
            target_closure: host.record.target_closure.clone(),
            staged: host.staged,
        });
        rows.hosts.push(host_row(host));
    }
    let hosts = host_set.len() as u64;
    rows.rollouts.push(RolloutRow {
        record: rollout.record,
        manifest_hash: rollout.manifest_hash,
        pinned: Some(Arc::new(Pinned {
            on_health_failure: rollout.on_health_failure,
            waves: rollout.waves,
            host_set,
            disruption_budgets: rollout.disruption_budgets,
        })),
        position: rollout.position,
    });
    Ok(hosts)
}

fn host_row(host: HostLine) -> HostRow {
    let target = || host.record.target_closure.clone();
    HostRow {
        recovery_candidate: host.candidate.then(target),
        queued: host.queued,
        position: host.position,
        record: host.record,
    }
}
