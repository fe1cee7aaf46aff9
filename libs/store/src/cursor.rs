//! Cursors of partitions: the position of their rows in both logs.

use std::error::Error;

use deadpool_postgres::{GenericClient, Transaction};
use futures::future::BoxFuture;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::{Names, Partition};

use crate::error::{ApplyError, ReadError};
use crate::parameter_encoding::column_value::{column_seq, record_json};
use crate::parameter_encoding::nul_escape::decode_json;
use crate::prepared_statement::sql;
use crate::store::Store;

/// Reads [`Store::covered_sequences`] at every call.
pub type CoveredSequencesSource = Box<
    dyn Fn() -> BoxFuture<'static, Result<Vec<(String, u64)>, Box<dyn Error + Send + Sync>>>
        + Send
        + Sync,
>;

impl Store {
    /// The cursor of one partition; `None` when nothing was applied.
    pub async fn cursor(&self, partition: Partition) -> Result<Option<Cursor>, ReadError> {
        select(&self.client().await?, partition).await
    }

    /// The cursors of all partitions that have one, in order.
    pub async fn cursors(&self) -> Result<Vec<(Partition, Cursor)>, ReadError> {
        select_all(&self.client().await?).await
    }

    /// The last sequence of each stream that tables and archive cover: lost streams are created above.
    ///
    /// # Errors
    /// When the database fails, a row is corrupt, or as [`Store::schema_ready`].
    pub async fn covered_sequences(&self, names: &Names) -> Result<Vec<(String, u64)>, ReadError> {
        self.schema_ready().await?;
        let cursors = self.cursors().await?;
        let applied = cursors.iter();
        let applied = applied.flat_map(|(partition, cursor)| cursor.covered(names, *partition));
        let archived = self.archive_cursors().await?.into_iter();
        let archived = archived.map(|(stream, mark)| (stream, mark.sequence));
        Ok(applied.chain(archived).collect())
    }

    /// A source of the current [`Store::covered_sequences`].
    pub fn read_covered_sequences(&self, names: &Names) -> CoveredSequencesSource {
        let (store, names) = (self.clone(), names.clone());
        Box::new(move || {
            let (store, names) = (store.clone(), names.clone());
            Box::pin(async move { Ok(store.covered_sequences(&names).await?) })
        })
    }
}

pub(crate) async fn select(
    client: &impl GenericClient,
    partition: Partition,
) -> Result<Option<Cursor>, ReadError> {
    let number = i32::from(partition.number());
    let row = sql!("cursor_select").query_opt(client, &[&number]).await?;
    row.map(|row| parse(number, row.get(0))).transpose()
}

pub(crate) async fn select_all(
    client: &impl GenericClient,
) -> Result<Vec<(Partition, Cursor)>, ReadError> {
    let mut cursors = Vec::new();
    for row in sql!("cursors_select").query(client, &[]).await? {
        let number: i32 = row.get(0);
        let partition = u16::try_from(number).map_err(|fault| corrupt(number, fault))?;
        cursors.push((Partition::new(partition), parse(number, row.get(1))?));
    }
    Ok(cursors)
}

fn parse(number: i32, record: &str) -> Result<Cursor, ReadError> {
    serde_json::from_str(&decode_json(record)).map_err(|fault| corrupt(number, fault))
}

fn corrupt(number: i32, fault: impl std::error::Error + Send + Sync + 'static) -> ReadError {
    ReadError::Corrupt {
        table: "partition_cursors",
        key: number.to_string(),
        source: Box::new(fault),
    }
}

pub(crate) async fn compare_and_swap(
    transaction: &Transaction<'_>,
    partition: Partition,
    previous_out_seq: u64,
    cursor: &Cursor,
) -> Result<(), ApplyError> {
    let number = i32::from(partition.number());
    let out_seq = column_seq("the output sequence", cursor.out_seq)?;
    if let Some(mark) = cursor.input {
        column_seq("the input sequence", mark.seq)?;
    }
    let record = record_json(cursor)?;
    let moved = if previous_out_seq == 0 {
        sql!("cursor_insert")
            .execute(transaction, &[&number, &out_seq, &record])
            .await?
    } else {
        let previous = column_seq("the previous output sequence", previous_out_seq)?;
        sql!("cursor_update")
            .execute(transaction, &[&number, &out_seq, &record, &previous])
            .await?
    };
    if moved == 1 {
        Ok(())
    } else {
        Err(ApplyError::Conflict {
            partition: partition.number(),
            expected: previous_out_seq,
        })
    }
}
