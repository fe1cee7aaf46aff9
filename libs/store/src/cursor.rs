//! Cursors of partitions: the position of their rows in both logs.

use deadpool_postgres::{GenericClient, Transaction};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use crate::error::{ApplyError, ReadError};
use crate::sql::column_value::{column_seq, record_json};
use crate::sql::escape::decode_json;
use crate::sql::sql;
use crate::store::Store;

impl Store {
    /// The cursor of one partition; `None` when nothing was applied.
    pub async fn cursor(&self, partition: Partition) -> Result<Option<Cursor>, ReadError> {
        select(&self.client().await?, partition).await
    }

    /// The cursors of all partitions that have one, in order.
    pub async fn cursors(&self) -> Result<Vec<(Partition, Cursor)>, ReadError> {
        select_all(&self.client().await?).await
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
