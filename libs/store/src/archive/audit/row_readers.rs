//! Readers of rows in order, page by page.

use std::collections::VecDeque;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Portal, Row};

use crate::error::{DbError, ReadError};
use crate::parameter_encoding::nul_escape::{decode, decode_json};
use crate::prepared_statement::PreparedStatement;

/// One archived message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedMessage {
    /// Its sequence.
    pub sequence: u64,
    /// Time at which the stream stored it, in microseconds.
    pub ts: DateTime<Utc>,
    /// Its rows by index.
    pub rows: Vec<MessageRow>,
}

/// One row of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageRow {
    /// Index in the message; -1 for an output frame.
    pub index: i32,
    /// Kind of the row.
    pub kind: String,
    /// The content as JSON text.
    pub payload: String,
    /// The outcomes of an output frame as a JSON array; `None` when it has none.
    pub outcomes: Option<String>,
    /// Subject of the message.
    pub subject: String,
    /// Rollout that the row concerns.
    pub rollout_id: Option<String>,
    /// Host that the row concerns.
    pub hostname: Option<String>,
    /// Trace context.
    pub traceparent: Option<String>,
}

/// One row of a domain table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// Its primary key.
    pub key: Vec<String>,
    /// The columns that are derived from the log, as a JSON object.
    pub columns: String,
}

/// Archived messages in order.
pub struct MessageReader<'a> {
    pub(super) stream: String,
    pub(super) rows: Pages<'a>,
}

impl MessageReader<'_> {
    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ArchivedMessage>, ReadError> {
        let mut message: Option<ArchivedMessage> = None;
        while let Some(row) = self.rows.peek().await? {
            let sequence = unsigned(&self.stream, row.get(0))?;
            if message
                .as_ref()
                .is_some_and(|message| message.sequence != sequence)
            {
                break;
            }
            let message = message.get_or_insert_with(|| ArchivedMessage {
                sequence,
                ts: row.get(2),
                rows: Vec::new(),
            });
            let text = |column| {
                row.get::<_, Option<&str>>(column)
                    .map(|text| decode(text).into_owned())
            };
            message.rows.push(MessageRow {
                index: row.get(1),
                kind: decode(row.get(3)).into_owned(),
                payload: decode_json(row.get(4)).into_owned(),
                outcomes: row
                    .get::<_, Option<&str>>(5)
                    .map(|outcomes| decode_json(outcomes).into_owned()),
                subject: decode(row.get(6)).into_owned(),
                rollout_id: text(7),
                hostname: text(8),
                traceparent: text(9),
            });
            self.rows.pop();
        }
        Ok(message)
    }
}

/// Rows of a domain table in order.
pub struct TableReader<'a> {
    pub(super) rows: Pages<'a>,
}

impl TableReader<'_> {
    /// The next row; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<TableRow>, ReadError> {
        let Some(row) = self.rows.peek().await? else {
            return Ok(None);
        };
        let key: Vec<&str> = row.get(0);
        let found = TableRow {
            key: key
                .into_iter()
                .map(|part| decode(part).into_owned())
                .collect(),
            columns: decode_json(row.get(1)).into_owned(),
        };
        self.rows.pop();
        Ok(Some(found))
    }
}

/// The rows of one statement in pages.
pub(super) struct Pages<'a> {
    transaction: &'a Transaction<'a>,
    name: &'static str,
    portal: Portal,
    fetch: i32,
    page: VecDeque<Row>,
    is_last: bool,
}

impl<'a> Pages<'a> {
    pub(super) async fn open(
        transaction: &'a Transaction<'_>,
        statement: PreparedStatement,
        params: &[&(dyn ToSql + Sync)],
        fetch: i32,
    ) -> Result<Self, ReadError> {
        let prepared = statement.prepare(transaction).await?;
        let portal = transaction.bind(&prepared, params).await;
        Ok(Self {
            transaction,
            name: statement.name,
            portal: portal.map_err(DbError::statement(statement.name))?,
            fetch,
            page: VecDeque::new(),
            is_last: false,
        })
    }

    async fn peek(&mut self) -> Result<Option<&Row>, ReadError> {
        if self.page.is_empty() && !self.is_last {
            let rows = self
                .transaction
                .query_portal(&self.portal, self.fetch)
                .await;
            let rows = rows.map_err(DbError::statement(self.name))?;
            self.is_last = rows.len() < self.fetch as usize;
            self.page.extend(rows);
        }
        Ok(self.page.front())
    }

    fn pop(&mut self) {
        self.page.pop_front();
    }
}

/// Converts a count of the database for the archive of a stream.
pub(super) fn unsigned(stream: &str, value: i64) -> Result<u64, ReadError> {
    u64::try_from(value).map_err(|fault| ReadError::Corrupt {
        table: "event_log",
        key: stream.to_owned(),
        source: Box::new(fault),
    })
}
