//! Rows in the binary format of COPY, sent in large chunks. The client library's writer sends every 4 KiB,
//! which costs a system call here and a wake-up of the server each time.
//!
//! Source: PostgreSQL documentation, COPY, binary format; formats of values: `*_recv` of the types.

use std::pin::{Pin, pin};

use bytes::{BufMut as _, Bytes, BytesMut};
use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::Transaction;
use futures::SinkExt as _;
use tokio_postgres::CopyInSink;

use crate::error::DbError;
use crate::prepared_statement::PreparedStatement;

/// Signature, flags and length of the header extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Column count that marks the end of the rows.
const TRAILER: i16 = -1;
/// Length of a null value.
const NULL: i32 = -1;
/// Size from which on a chunk is sent.
const CHUNK_BYTES: usize = 256 * 1024;
/// Seconds from 1970 to 2000, the epoch of the server.
const EPOCH_SECONDS: i64 = 946_684_800;

/// Runs a COPY of these items; `write` encodes each one as a row.
///
/// # Errors
/// When the server rejects a row, or `write` fails: nothing is copied then.
pub(crate) async fn copy<T, E: From<DbError>>(
    transaction: &Transaction<'_>,
    statement: PreparedStatement,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut CopyBuffer, T) -> Result<(), E>,
) -> Result<(), E> {
    let failed = || DbError::statement(statement.name);
    let mut sink = pin!(begin(transaction, statement).await?);
    let mut rows = CopyBuffer::default();
    for item in items {
        write(&mut rows, item)?;
        for chunk in rows.chunks.drain(..) {
            sink.as_mut().feed(chunk).await.map_err(failed())?;
        }
    }
    Ok(finish(sink, &rows).await.map_err(failed())?)
}

/// Runs a COPY of encoded rows.
pub(crate) async fn copy_rows(
    transaction: &Transaction<'_>,
    statement: PreparedStatement,
    rows: &CopyBuffer,
) -> Result<(), DbError> {
    let sink = pin!(begin(transaction, statement).await?);
    let finished = finish(sink, rows).await;
    finished.map_err(DbError::statement(statement.name))
}

async fn begin(
    transaction: &Transaction<'_>,
    statement: PreparedStatement,
) -> Result<CopyInSink<Bytes>, DbError> {
    let prepared = statement.prepare(transaction).await?;
    let sink = transaction.copy_in(&prepared).await;
    sink.map_err(DbError::statement(statement.name))
}

/// Sends the remaining rows, and ends the COPY.
async fn finish(
    mut sink: Pin<&mut CopyInSink<Bytes>>,
    rows: &CopyBuffer,
) -> Result<(), tokio_postgres::Error> {
    for chunk in &rows.chunks {
        sink.feed(chunk.clone()).await?;
    }
    sink.feed(rows.end()).await?;
    sink.finish().await?;
    Ok(())
}

/// Encoded rows. Each row is started with its column count and then given one value per column.
#[derive(Debug)]
pub(crate) struct CopyBuffer {
    chunks: Vec<Bytes>,
    /// Bytes after the full chunks.
    bytes: BytesMut,
}

impl Default for CopyBuffer {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            bytes: BytesMut::from(HEADER),
        }
    }
}

impl CopyBuffer {
    /// Bytes after the full chunks, with the trailer.
    fn end(&self) -> Bytes {
        let mut last = self.bytes.clone();
        last.put_i16(TRAILER);
        last.freeze()
    }

    pub(crate) fn row(&mut self, columns: i16) {
        self.bytes.put_i16(columns);
    }

    /// `text` or `json`.
    pub(crate) fn text(&mut self, text: Option<&str>) {
        self.value(text.map(str::as_bytes));
    }

    pub(crate) fn int4(&mut self, value: i32) {
        self.value(Some(&value.to_be_bytes()));
    }

    pub(crate) fn int8(&mut self, value: Option<i64>) {
        let bytes = value.map(i64::to_be_bytes);
        self.value(bytes.as_ref().map(<[u8; 8]>::as_slice));
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.value(Some(&[u8::from(value)]));
    }

    pub(crate) fn float8(&mut self, value: f64) {
        self.value(Some(&value.to_be_bytes()));
    }

    /// `timestamptz`, truncated to microseconds.
    pub(crate) fn time(&mut self, at: DateTime<Utc>) {
        let since = at - TimeDelta::seconds(EPOCH_SECONDS);
        self.int8(Some(since.timestamp_micros()));
    }

    fn value(&mut self, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else {
            return self.bytes.put_i32(NULL);
        };
        let length = i32::try_from(bytes.len());
        self.bytes
            .put_i32(length.expect("a value is a part of a message, far below 2 GiB"));
        self.bytes.put_slice(bytes);
        if self.bytes.len() >= CHUNK_BYTES {
            let next = BytesMut::with_capacity(CHUNK_BYTES);
            let chunk = std::mem::replace(&mut self.bytes, next);
            self.chunks.push(chunk.freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_postgres::types::private::BytesMut as Buffer;
    use tokio_postgres::types::{ToSql, Type};

    /// The encoding of the client library.
    fn theirs(value: &dyn ToSql, ty: &Type) -> Vec<u8> {
        let mut bytes = Buffer::new();
        let null = value.to_sql_checked(ty, &mut bytes).unwrap();
        let length = match null {
            tokio_postgres::types::IsNull::Yes => -1,
            tokio_postgres::types::IsNull::No => i32::try_from(bytes.len()).unwrap(),
        };
        [&length.to_be_bytes(), &bytes[..]].concat()
    }

    fn ours(write: impl FnOnce(&mut CopyBuffer)) -> Vec<u8> {
        let mut rows = CopyBuffer {
            chunks: Vec::new(),
            bytes: BytesMut::new(),
        };
        write(&mut rows);
        rows.bytes.to_vec()
    }

    #[test]
    fn values_are_encoded_as_by_the_client_library() {
        for text in [None, Some(""), Some("ä\u{FFFD}")] {
            assert_eq!(ours(|rows| rows.text(text)), theirs(&text, &Type::TEXT));
        }
        for value in [None, Some(i64::MIN), Some(7)] {
            assert_eq!(ours(|rows| rows.int8(value)), theirs(&value, &Type::INT8));
        }
        assert_eq!(ours(|rows| rows.int4(-1)), theirs(&-1_i32, &Type::INT4));
        for value in [true, false] {
            assert_eq!(ours(|rows| rows.bool(value)), theirs(&value, &Type::BOOL));
        }
        assert_eq!(ours(|rows| rows.float8(0.1)), theirs(&0.1, &Type::FLOAT8));
        let json = crate::parameter_encoding::json_parameter::Json("{}");
        assert_eq!(
            ours(|rows| rows.text(Some("{}"))),
            theirs(&json, &Type::JSON)
        );
        let times = [
            "0001-01-01T00:00:00Z",
            "1999-12-31T23:59:59.9999999Z",
            "9999-12-31T23:59:59Z",
        ];
        for at in times {
            let at: DateTime<Utc> = at.parse().unwrap();
            let cut = DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap();
            assert_eq!(ours(|rows| rows.time(at)), theirs(&cut, &Type::TIMESTAMPTZ));
        }
    }

    #[test]
    fn all_chunks_together_are_header_rows_and_trailer() {
        let long = "x".repeat(CHUNK_BYTES);
        let mut rows = CopyBuffer::default();
        rows.row(1);
        assert!(rows.chunks.is_empty());
        rows.text(Some(&long));
        assert_eq!((rows.chunks.len(), rows.bytes.len()), (1, 0));
        rows.row(1);
        rows.text(None);
        let complete = [&rows.chunks[0][..], &rows.end()].concat();
        let expected = [
            HEADER,
            &1_i16.to_be_bytes(),
            &i32::try_from(long.len()).unwrap().to_be_bytes(),
            long.as_bytes(),
            &1_i16.to_be_bytes(),
            &NULL.to_be_bytes(),
            &TRAILER.to_be_bytes(),
        ];
        assert_eq!(complete, expected.concat());
    }
}
