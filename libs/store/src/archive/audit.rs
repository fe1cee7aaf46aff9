//! Reading archive and tables as of one instant and in pages: either may be far larger than memory.

mod row_readers;

use std::collections::BTreeMap;

use deadpool_postgres::{Object, Transaction};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{CheckpointRef, InputMark, RolloutId, Timestamp};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

pub use row_readers::{ArchivedMessage, MessageReader, MessageRow, TableReader, TableRow};
use row_readers::{Pages, unsigned};

use super::ArchiveMark;
use crate::cursor;
use crate::error::{DbError, ReadError};
use crate::load::read_transaction;
use crate::parameter_encoding::nul_escape::{decode_json, encode};
use crate::prepared_statement::{PreparedStatement, sql};
use crate::store::Store;

/// Rows of a domain table per page.
const FETCH_ROWS: i32 = 2_000;
/// Rows of messages per page; a frame may have a MiB of outcomes.
const FETCH_MESSAGES: i32 = 128;

/// A connection for an audit.
pub struct AuditSession(Object);

/// Archive and tables as of one instant.
pub struct Audit<'a> {
    transaction: Transaction<'a>,
}

/// One stream among several that had the same name, from its creation to its loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Creation time.
    pub created: Timestamp,
    /// First archived sequence.
    pub first_sequence: u64,
}

/// Archived part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedStream {
    /// Its name.
    pub stream: String,
    /// First sequence in `event_log`.
    pub first: u64,
    /// Last archived sequence.
    pub mark: ArchiveMark,
    /// The streams that had this name, in the order of archiving; never empty.
    pub generations: Vec<Generation>,
}

/// Part of a domain table to read.
#[derive(Debug, Clone, Copy)]
pub enum AuditScope<'a> {
    /// The cursor of a partition.
    Cursor(Partition),
    /// The rollouts of a partition.
    Rollouts(Partition),
    /// The quarantines of a partition.
    Quarantines(Partition),
    /// The hosts of a rollout.
    Hosts(&'a RolloutId),
    /// The outstanding failures of a rollout, by probe in the text order of the database.
    ProbeFailures(&'a RolloutId),
    /// The dispatches of a rollout.
    Dispatches(&'a RolloutId),
    /// The holds of a rollout.
    Blocks(&'a RolloutId),
}

impl AuditScope<'_> {
    /// Name of the table.
    pub fn table(&self) -> &'static str {
        match self {
            Self::Cursor(_) => "partition_cursors",
            Self::Rollouts(_) => "rollouts",
            Self::Quarantines(_) => "quarantined_closures",
            Self::Hosts(_) => "host_rollout_records",
            Self::ProbeFailures(_) => "probe_failures",
            Self::Dispatches(_) => "dispatch_queue",
            Self::Blocks(_) => "gate_blocks",
        }
    }

    fn statement(&self) -> PreparedStatement {
        match self {
            Self::Cursor(_) => sql!("audit_partition_cursors"),
            Self::Rollouts(_) => sql!("audit_rollouts"),
            Self::Quarantines(_) => sql!("audit_quarantined_closures"),
            Self::Hosts(_) => sql!("audit_host_rollout_records"),
            Self::ProbeFailures(_) => sql!("audit_probe_failures"),
            Self::Dispatches(_) => sql!("audit_dispatch_queue"),
            Self::Blocks(_) => sql!("audit_gate_blocks"),
        }
    }

    fn parameter(&self) -> String {
        match self {
            Self::Cursor(partition) | Self::Rollouts(partition) | Self::Quarantines(partition) => {
                partition.number().to_string()
            }
            Self::Hosts(id) | Self::ProbeFailures(id) | Self::Dispatches(id) | Self::Blocks(id) => {
                encode(id.as_str()).into_owned()
            }
        }
    }
}

impl Store {
    /// A connection for an audit, as the owner of the schema when one is configured.
    pub async fn audit_session(&self) -> Result<AuditSession, DbError> {
        Ok(AuditSession(self.owner_client().await?))
    }
}

impl AuditSession {
    /// Begins the read transaction that fixes the instant.
    pub async fn begin(&mut self) -> Result<Audit<'_>, ReadError> {
        let transaction = read_transaction(&mut self.0).await?;
        // Reading a whole large table is one statement.
        transaction
            .batch_execute("SET LOCAL statement_timeout = 0")
            .await
            .map_err(DbError::statement("audit settings"))?;
        Ok(Audit { transaction })
    }
}

impl Audit<'_> {
    /// The cursors of all partitions that have one.
    pub async fn cursors(&self) -> Result<Vec<(Partition, Cursor)>, ReadError> {
        cursor::select_all(&self.transaction).await
    }

    /// The archived part of a stream; `None` when nothing is archived.
    pub async fn archived(&self, stream: &str) -> Result<Option<ArchivedStream>, ReadError> {
        let name = encode(stream);
        let Some(mark) = super::select_mark(&self.transaction, stream).await? else {
            return Ok(None);
        };
        let first = sql!("archive_first")
            .query_opt(&self.transaction, &[&name])
            .await?;
        let rows = sql!("archive_generations_select")
            .query(&self.transaction, &[&name])
            .await?;
        let generation = |row: &Row| {
            Ok::<_, ReadError>(Generation {
                created: super::parse_created(stream, row.get(0))?,
                first_sequence: unsigned(stream, row.get(1))?,
            })
        };
        let generations: Vec<Generation> = rows.iter().map(generation).collect::<Result<_, _>>()?;
        Ok(Some(ArchivedStream {
            stream: stream.to_owned(),
            first: match first {
                Some(row) => unsigned(stream, row.get(0))?,
                None => mark.sequence + 1,
            },
            mark,
            generations,
        }))
    }

    /// The sequences that are missing between the archived messages of a stream, as first and last of each gap.
    pub async fn gaps(&self, stream: &str) -> Result<Vec<(u64, u64)>, ReadError> {
        let rows = sql!("archive_gaps")
            .query(&self.transaction, &[&encode(stream)])
            .await?;
        let gap = |row: &Row| Ok((unsigned(stream, row.get(0))?, unsigned(stream, row.get(1))?));
        rows.iter().map(gap).collect()
    }

    /// The last sequence of a stream that has rows.
    pub async fn last_archived(&self, stream: &str) -> Result<Option<u64>, ReadError> {
        let row = sql!("archive_last")
            .query_opt(&self.transaction, &[&encode(stream)])
            .await?;
        row.map(|row| unsigned(stream, row.get(0))).transpose()
    }

    /// The checkpoint from which the newest part of an output stream's archive continues; `None` when the
    /// archive has no gap.
    pub async fn base(&self, stream: &str) -> Result<Option<CheckpointRef>, ReadError> {
        let row = sql!("archive_base_select")
            .query_opt(&self.transaction, &[&encode(stream)])
            .await?;
        let parse = |row: Row| {
            let parsed = serde_json::from_str(&decode_json(row.get(0)));
            parsed.map_err(|fault| ReadError::Corrupt {
                table: "archive_bases",
                key: stream.to_owned(),
                source: Box::new(fault),
            })
        };
        row.map(parse).transpose()
    }

    /// The last archived output frame below `before` that covers the input up to `mark`.
    pub async fn frame_covering(
        &self,
        stream: &str,
        before: u64,
        mark: Option<InputMark>,
    ) -> Result<Option<u64>, ReadError> {
        let mark = mark.map(|mark| {
            let (seq, index, of) = (mark.seq, mark.index, mark.of);
            format!("{{\"seq\":{seq},\"index\":{index},\"of\":{of}}}")
        });
        let before = i64::try_from(before).unwrap_or(i64::MAX);
        let row = sql!("archive_frame_at")
            .query_opt(&self.transaction, &[&encode(stream), &before, &mark])
            .await?;
        row.map(|row| unsigned(stream, row.get(0))).transpose()
    }

    /// The archived messages of a stream between two sequences, inclusive.
    pub async fn messages(
        &self,
        stream: &str,
        from: u64,
        to: u64,
    ) -> Result<MessageReader<'_>, ReadError> {
        let signed = |seq| i64::try_from(seq).unwrap_or(i64::MAX);
        let params: [&(dyn ToSql + Sync); 3] = [&encode(stream), &signed(from), &signed(to)];
        Ok(MessageReader {
            stream: stream.to_owned(),
            rows: Pages::open(
                &self.transaction,
                sql!("archive_read"),
                &params,
                FETCH_MESSAGES,
            )
            .await?,
        })
    }

    /// The rows of a part of a domain table, in the order of their keys.
    pub async fn rows(&self, scope: AuditScope<'_>) -> Result<TableReader<'_>, ReadError> {
        let parameter = scope.parameter();
        let params: [&(dyn ToSql + Sync); 1] = [&parameter];
        let rows = Pages::open(&self.transaction, scope.statement(), &params, FETCH_ROWS).await?;
        Ok(TableReader { rows })
    }

    /// Number of rows of each domain table.
    pub async fn row_counts(&self) -> Result<BTreeMap<String, u64>, ReadError> {
        let rows = sql!("audit_counts").query(&self.transaction, &[]).await?;
        let count = |row: &Row| (row.get(0), u64::try_from(row.get::<_, i64>(1)).unwrap_or(0));
        Ok(rows.iter().map(count).collect())
    }
}
