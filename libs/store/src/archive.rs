//! The archive of every stream.

pub mod artifacts;
pub mod history;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{Days, NaiveDate};
use deadpool_postgres::{GenericClient, Transaction};
use nixfleet_proto::entry::Position;
use nixfleet_proto::{Hostname, RolloutId, Timestamp};

use crate::copy::{CopyRows, copy};
use crate::error::{ArchiveError, DbError, ReadError};
use crate::sql::sql;
use crate::store::Store;
use crate::text::{column_time, decode, encode, encode_json};

/// One row of `event_log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveRow {
    /// Stream of the message.
    pub stream: Arc<str>,
    /// Its sequence.
    pub sequence: u64,
    /// Place of the entry in the frame; 0 for a message that is no frame; -1 for an output frame.
    pub index: i32,
    /// Its subject.
    pub subject: Arc<str>,
    /// When the stream stored it; decides the partition of the table.
    pub ts: Timestamp,
    /// What the row holds.
    pub kind: &'static str,
    /// The rollout it is about.
    pub rollout_id: Option<RolloutId>,
    /// The host it is about.
    pub hostname: Option<Hostname>,
    /// An entry's own position in the input log, or the last one that an output frame covers; joins
    /// the two.
    pub input: Option<Position>,
    /// The entry, the message, or the frame without its outcomes, as JSON text.
    pub payload: String,
    /// Trace context of the entry.
    pub traceparent: Option<String>,
    /// The outcomes of an output frame, as the JSON text of an array; absent when it has none.
    pub outcomes: Option<String>,
}

/// A move of the archive's cursor of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveCursor {
    /// The stream.
    pub stream: String,
    /// Where the batch started: the last sequence archived before it, 0 for none.
    pub previous_sequence: u64,
    /// The last sequence the batch covers.
    pub sequence: u64,
    /// When the stream was created: tells a stream that was replaced.
    pub stream_created: Timestamp,
}

/// How far a stream is archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveMark {
    /// Last archived sequence.
    pub sequence: u64,
    /// When the stream was created.
    pub stream_created: Timestamp,
}

/// Days whose partition of `event_log` this process has seen.
pub(crate) type KnownDays = Mutex<BTreeSet<NaiveDate>>;

/// Columns that the statement names.
const COLUMNS: i16 = 13;

impl Store {
    /// How far a stream is archived; absent when nothing is.
    ///
    /// # Errors
    /// When the database fails or the row is corrupt.
    pub async fn archive_cursor(&self, stream: &str) -> Result<Option<ArchiveMark>, ReadError> {
        select_mark(&self.client().await?, stream).await
    }

    /// How far each stream is archived, by name.
    ///
    /// # Errors
    /// When the database fails or a row is corrupt.
    pub async fn archive_cursors(&self) -> Result<BTreeMap<String, ArchiveMark>, ReadError> {
        let rows = sql!("archive_cursors_select")
            .query(&self.client().await?, &[])
            .await?;
        let marks = rows.iter().map(|row| {
            let stream = decode(row.get(0)).into_owned();
            let mark = parse_mark(&stream, row.get(1), row.get(2))?;
            Ok((stream, mark))
        });
        marks.collect()
    }

    /// Archives a batch of one stream and moves its cursor, all or nothing.
    ///
    /// # Errors
    /// [`ArchiveError::Conflict`] when the cursor was not at `previous_sequence`.
    pub async fn archive(
        &self,
        rows: &[ArchiveRow],
        cursor: &ArchiveCursor,
    ) -> Result<(), ArchiveError> {
        self.ensure_days(rows).await?;
        let result = self.archive_batch(rows, cursor).await;
        if let Err(ArchiveError::Db(_)) = &result {
            // The days may be gone with a dropped schema.
            self.known_days().clear();
        }
        result
    }

    async fn archive_batch(
        &self,
        rows: &[ArchiveRow],
        cursor: &ArchiveCursor,
    ) -> Result<(), ArchiveError> {
        let mut client = self.client().await?;
        let transaction = client
            .transaction()
            .await
            .map_err(DbError::statement("begin"))?;
        let first = rows.first().map_or(cursor.sequence, |row| row.sequence);
        move_cursor(&transaction, cursor, first).await?;
        copy(&transaction, sql!("archive_copy"), rows.iter(), write_row).await?;
        transaction
            .commit()
            .await
            .map_err(DbError::statement("commit"))?;
        Ok(())
    }

    /// Creates the partitions of all days of the batch and of the days after them, so that midnight
    /// finds its partition there.
    async fn ensure_days(&self, rows: &[ArchiveRow]) -> Result<(), DbError> {
        let days = rows.iter().map(|row| column_time(row.ts).date_naive());
        let mut wanted: BTreeSet<NaiveDate> = days.collect();
        let ahead: Vec<_> = wanted
            .iter()
            .filter_map(|day| day.checked_add_days(Days::new(1)))
            .collect();
        wanted.extend(ahead);
        wanted.retain(|day| !self.known_days().contains(day));
        if wanted.is_empty() {
            return Ok(());
        }
        let client = self.client().await?;
        for day in wanted {
            sql!("archive_ensure_day").execute(&client, &[&day]).await?;
            self.known_days().insert(day);
        }
        Ok(())
    }

    fn known_days(&self) -> std::sync::MutexGuard<'_, BTreeSet<NaiveDate>> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn select_mark(
    client: &impl GenericClient,
    stream: &str,
) -> Result<Option<ArchiveMark>, ReadError> {
    let row = sql!("archive_cursor_select")
        .query_opt(client, &[&encode(stream)])
        .await?;
    row.map(|row| parse_mark(stream, row.get(0), row.get(1)))
        .transpose()
}

fn parse_mark(stream: &str, sequence: i64, created: &str) -> Result<ArchiveMark, ReadError> {
    Ok(ArchiveMark {
        sequence: u64::try_from(sequence).map_err(|fault| corrupt(stream, fault))?,
        stream_created: parse_created(stream, created)?,
    })
}

/// The creation time of a stream as it is stored.
pub(crate) fn parse_created(stream: &str, created: &str) -> Result<Timestamp, ReadError> {
    created
        .parse()
        .map_err(|fault: chrono::ParseError| corrupt(stream, fault))
}

fn corrupt(stream: &str, source: impl std::error::Error + Send + Sync + 'static) -> ReadError {
    ReadError::Corrupt {
        table: "archive_cursors",
        key: stream.to_owned(),
        source: Box::new(source),
    }
}

fn column_seq(field: &'static str, value: u64) -> Result<i64, ArchiveError> {
    i64::try_from(value).map_err(|_| ArchiveError::OutOfRange { field, value })
}

async fn move_cursor(
    transaction: &Transaction<'_>,
    cursor: &ArchiveCursor,
    first_sequence: u64,
) -> Result<(), ArchiveError> {
    let first = column_seq("the first sequence", first_sequence)?;
    let stream = encode(&cursor.stream);
    let sequence = column_seq("the sequence", cursor.sequence)?;
    let created = cursor.stream_created.to_rfc3339();
    let moved = if cursor.previous_sequence == 0 {
        sql!("archive_cursor_insert")
            .execute(transaction, &[&stream, &sequence, &created, &first])
            .await?
    } else {
        let previous = column_seq("the previous sequence", cursor.previous_sequence)?;
        sql!("archive_cursor_update")
            .execute(
                transaction,
                &[&stream, &sequence, &created, &previous, &first],
            )
            .await?
    };
    if moved == 1 {
        Ok(())
    } else {
        Err(ArchiveError::Conflict {
            stream: cursor.stream.clone(),
            expected: cursor.previous_sequence,
        })
    }
}

/// One row, with the columns in the order of the statement.
fn write_row(copied: &mut CopyRows, row: &ArchiveRow) -> Result<(), ArchiveError> {
    let input_seq = row
        .input
        .map(|input| column_seq("the input sequence", input.seq))
        .transpose()?;
    let sequence = column_seq("the sequence", row.sequence)?;
    let rollout_id = row.rollout_id.as_ref().map(|id| encode(id.as_str()));
    let hostname = row.hostname.as_ref().map(|name| encode(name.as_str()));
    let outcomes = row.outcomes.as_deref().map(encode_json);
    copied.row(COLUMNS);
    copied.text(Some(&encode(&row.stream)));
    copied.int8(Some(sequence));
    copied.int4(row.index);
    copied.text(Some(&encode(&row.subject)));
    copied.time(column_time(row.ts));
    copied.text(Some(&encode(row.kind)));
    copied.text(rollout_id.as_deref());
    copied.text(hostname.as_deref());
    copied.int8(input_seq);
    copied.int8(row.input.map(|input| i64::from(input.index)));
    copied.text(Some(&encode_json(&row.payload)));
    copied.text(row.traceparent.as_deref().map(encode).as_deref());
    copied.text(outcomes.as_deref());
    Ok(())
}
