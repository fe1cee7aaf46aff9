//! The archive of every stream.

pub mod artifacts;
pub mod audit;
mod batch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use chrono::{Days, NaiveDate};
use deadpool_postgres::{GenericClient, Transaction};
use nixfleet_proto::Timestamp;

use crate::binary_copy::copy_rows;
use crate::error::{ArchiveError, DbError, ReadError};
use crate::parameter_encoding::column_value::column_seq;
use crate::parameter_encoding::nul_escape::{decode, encode};
use crate::prepared_statement::sql;
use crate::store::Store;
use crate::transaction::{begin, commit};

pub use batch::{ArchiveBatch, ArchiveRow};

/// Move of the archive cursor of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveCursor {
    /// Name of the stream.
    pub stream: String,
    /// Last sequence archived before the batch; 0 when there is none.
    pub previous_sequence: u64,
    /// Last sequence of the batch.
    pub sequence: u64,
    /// Creation time of the stream; tells a stream that was replaced.
    pub stream_created: Timestamp,
}

/// Archived part of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveMark {
    /// Last archived sequence.
    pub sequence: u64,
    /// Creation time of the stream.
    pub stream_created: Timestamp,
}

impl Store {
    /// The archived part of a stream; `None` when nothing is archived.
    pub async fn archive_cursor(&self, stream: &str) -> Result<Option<ArchiveMark>, ReadError> {
        select_mark(&self.client().await?, stream).await
    }

    /// The archived part of each stream, by name.
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
        batch: &ArchiveBatch,
        cursor: &ArchiveCursor,
    ) -> Result<(), ArchiveError> {
        self.ensure_days(&batch.days).await?;
        let result = self.archive_batch(batch, cursor).await;
        self.forget_days_on_error(&result);
        result
    }

    /// Copies a batch before the previous batch is known to be archived. `turn` resolves to the cursor move
    /// once it is, or to `None` when it failed; nothing is archived then. Returns whether the batch is
    /// archived.
    ///
    /// # Errors
    /// As [`Store::archive`]; the database rejects rows that are archived already.
    pub async fn archive_ahead(
        &self,
        batch: &ArchiveBatch,
        turn: impl Future<Output = Option<ArchiveCursor>>,
    ) -> Result<bool, ArchiveError> {
        self.ensure_days(&batch.days).await?;
        let result = self.archive_batch_ahead(batch, turn).await;
        self.forget_days_on_error(&result);
        result
    }

    async fn archive_batch_ahead(
        &self,
        batch: &ArchiveBatch,
        turn: impl Future<Output = Option<ArchiveCursor>>,
    ) -> Result<bool, ArchiveError> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client).await?;
        copy_rows(&transaction, sql!("archive_copy"), &batch.rows).await?;
        let Some(cursor) = turn.await else {
            return Ok(false);
        };
        move_cursor(&transaction, &cursor, batch).await?;
        commit(transaction).await?;
        Ok(true)
    }

    async fn archive_batch(
        &self,
        batch: &ArchiveBatch,
        cursor: &ArchiveCursor,
    ) -> Result<(), ArchiveError> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client).await?;
        // The cursor comes first, so that a late writer gets a conflict and not an error about duplicate
        // rows.
        move_cursor(&transaction, cursor, batch).await?;
        copy_rows(&transaction, sql!("archive_copy"), &batch.rows).await?;
        Ok(commit(transaction).await?)
    }

    /// Creates the table partitions of all days of the batch and of the days after them, so that they exist
    /// at midnight.
    async fn ensure_days(&self, days: &BTreeSet<NaiveDate>) -> Result<(), DbError> {
        let mut wanted = days.clone();
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

    fn forget_days_on_error<T>(&self, result: &Result<T, ArchiveError>) {
        if let Err(ArchiveError::Db(_)) = result {
            // The partitions may be gone with a dropped schema.
            self.known_days().clear();
        }
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

async fn move_cursor(
    transaction: &Transaction<'_>,
    cursor: &ArchiveCursor,
    batch: &ArchiveBatch,
) -> Result<(), ArchiveError> {
    let first_sequence = batch.first.unwrap_or(cursor.sequence);
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
