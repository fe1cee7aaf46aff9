//! The answer, put together from what was read.
//!
//! Source: docs/wire-protocol.md, cluster.

mod membership;

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_bus::{LastFrame, LogKind, LogUsage, NeededFrom, NewestAnnouncement};
use nixfleet_proto::Timestamp;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_store::ArchiveMark;
use serde::Serialize;

use super::log_sources::LogSource;

pub use membership::Membership;

/// `GET /v1/cluster`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    at: Timestamp,
    services: Vec<Service>,
    leader: Option<Owner>,
    partitions: Vec<PartitionView>,
    shared: SharedView,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    service: String,
    members: Vec<Member>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    instance: String,
    version: String,
    since: Timestamp,
    renewed_at: Timestamp,
    holds: Vec<String>,
    declines: BTreeSet<String>,
}

/// Who holds a key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    instance: String,
    /// Epoch of its work, once it has one.
    epoch: Option<u64>,
    renewed_at: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionView {
    partition: u16,
    /// By service; null where nobody holds it.
    owners: BTreeMap<&'static str, Option<Owner>>,
    /// Epoch of the last output frame; 0 before there is one.
    epoch: Option<u64>,
    input_seq: Option<u64>,
    folded_input_seq: Option<u64>,
    /// Input messages that are not folded.
    input_lag_messages: Option<u64>,
    output_seq: Option<u64>,
    applied_output_seq: Option<u64>,
    /// Output frames that are not applied.
    output_lag_messages: Option<u64>,
    /// Messages of both logs that are not archived.
    archive_lag_messages: Option<u64>,
    input_log: Option<LogView>,
    output_log: Option<LogView>,
}

/// How full a log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct LogView {
    bytes: u64,
    max_bytes: u64,
    percent: u64,
    /// Who needs its oldest message; null when the tables or the archive could not be read.
    held_by: Option<&'static str>,
    /// Who fills an input log that is nearly full, by a sample.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<LogSource>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SharedView {
    archived_by: Option<Owner>,
    archive_lag_messages: Option<u64>,
}

/// Something in the bucket that should not be, or is missing.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    service: String,
    key: String,
    instance: Option<String>,
    code: &'static str,
    message: String,
}

/// What was read of a partition's logs.
pub struct Log {
    pub partition: Partition,
    /// Who fills the input log, when it is nearly full.
    pub sources: Vec<LogSource>,
    /// Name and fill of the input log.
    pub input: (String, Option<LogUsage>),
    /// Name and fill of the output log.
    pub output: (String, Option<LogUsage>),
    /// Its last frame; the outer absence is a read that failed.
    pub last: Option<Option<LastFrame>>,
}

/// The end of the release announcements.
pub struct Announcements {
    pub newest: Option<NewestAnnouncement>,
    /// Why the last announcement is not the current release of this console.
    pub refusal: Option<String>,
}

/// What was read of the archive.
pub struct Archive {
    /// Cursors by stream.
    pub archived: Option<BTreeMap<String, ArchiveMark>>,
    pub shared: Vec<(String, Option<LogUsage>)>,
}

impl Archive {
    /// Messages of some streams that are not archived.
    fn lag(&self, streams: &[&(String, Option<LogUsage>)]) -> Option<u64> {
        let archived = self.archived.as_ref()?;
        let lags = streams.iter().map(|(name, identity)| {
            let done = archived.get(name).map_or(0, |mark| mark.sequence);
            Some(behind(identity.as_ref()?, done))
        });
        lags.sum()
    }
}

impl Archive {
    /// How full a log is, and who needs its oldest message, as far as that was read. A partition
    /// without rows has no cursor.
    fn log_view(
        &self,
        kind: LogKind,
        (stream, fill): &(String, Option<LogUsage>),
        cursor: Option<Option<&Cursor>>,
    ) -> Option<LogView> {
        let fill = fill.as_ref()?;
        let held_by = cursor
            .zip(self.archived.as_ref())
            .map(|(cursor, archived)| {
                let archived = archived.get(stream).map(|mark| mark.sequence);
                // What stays for readers that are a little behind is known to the trimming service only.
                let margin = fill.last_seq + 1;
                let (_, holder) = NeededFrom::of(kind, cursor, archived, margin).first();
                holder.name()
            });
        Some(LogView {
            bytes: fill.bytes,
            max_bytes: fill.max_bytes,
            percent: fill.percent(),
            held_by,
            sources: Vec::new(),
        })
    }
}

/// Messages of a stream after a sequence, as far as it still has them.
fn behind(identity: &LogUsage, done: u64) -> u64 {
    let before_first = identity.first_seq.saturating_sub(1);
    identity.last_seq.saturating_sub(done.max(before_first))
}
