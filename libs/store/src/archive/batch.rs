//! Rows of the archive, encoded for COPY before the database is involved.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use nixfleet_proto::{Position, Timestamp};

use crate::binary_copy::CopyBuffer;
use crate::error::ArchiveError;
use crate::parameter_encoding::column_value::column_seq;
use crate::parameter_encoding::column_value::column_time;
use crate::parameter_encoding::nul_escape::{encode, encode_json};

/// Number of columns that the statement names.
const COLUMNS: i16 = 13;

/// One row of `event_log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveRow<'a> {
    /// Stream of the message.
    pub stream: &'a str,
    /// Its sequence.
    pub sequence: u64,
    /// Index of the entry in the frame; 0 for a message that is not a frame; -1 for an output frame.
    pub index: i32,
    /// Its subject.
    pub subject: &'a str,
    /// Time at which the stream stored it; selects the partition of the table.
    pub ts: Timestamp,
    /// Kind of the row.
    pub kind: &'a str,
    /// The rollout it is about.
    pub rollout_id: Option<&'a str>,
    /// The host it is about.
    pub hostname: Option<&'a str>,
    /// Position of the entry in the input log, or the last position that an output frame covers; joins the
    /// two.
    pub input: Option<Position>,
    /// The entry, the message, or the frame without its outcomes, as JSON text.
    pub payload: &'a str,
    /// Trace context of the entry.
    pub traceparent: Option<&'a str>,
    /// The outcomes of an output frame as a JSON array; `None` when it has none.
    pub outcomes: Option<&'a str>,
}

/// Rows of one stream, encoded for COPY.
#[derive(Debug, Default)]
pub struct ArchiveBatch {
    pub(super) rows: CopyBuffer,
    len: usize,
    pub(super) first: Option<u64>,
    /// Days whose table partitions the rows go into.
    pub(super) days: BTreeSet<NaiveDate>,
}

impl ArchiveBatch {
    /// Adds a row.
    ///
    /// # Errors
    /// When a number does not fit into its column; drop the batch then.
    pub fn push(&mut self, row: &ArchiveRow<'_>) -> Result<(), ArchiveError> {
        write_row(&mut self.rows, row)?;
        self.len += 1;
        self.first.get_or_insert(row.sequence);
        self.days.insert(column_time(row.ts).date_naive());
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Encodes one row; the columns are in the order of the statement.
fn write_row(copied: &mut CopyBuffer, row: &ArchiveRow<'_>) -> Result<(), ArchiveError> {
    let input_seq = row
        .input
        .map(|input| column_seq("the input sequence", input.seq))
        .transpose()?;
    let sequence = column_seq("the sequence", row.sequence)?;
    copied.row(COLUMNS);
    copied.text(Some(&encode(row.stream)));
    copied.int8(Some(sequence));
    copied.int4(row.index);
    copied.text(Some(&encode(row.subject)));
    copied.time(column_time(row.ts));
    copied.text(Some(&encode(row.kind)));
    copied.text(row.rollout_id.map(encode).as_deref());
    copied.text(row.hostname.map(encode).as_deref());
    copied.int8(input_seq);
    copied.int8(row.input.map(|input| i64::from(input.index)));
    copied.text(Some(&encode_json(row.payload)));
    copied.text(row.traceparent.map(encode).as_deref());
    copied.text(row.outcomes.map(encode_json).as_deref());
    Ok(())
}
