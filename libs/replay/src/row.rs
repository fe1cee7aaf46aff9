//! A row of any table, in a form in which both sides can be compared.

use std::collections::BTreeMap;

use nixfleet_proto::{Timestamp, column_time};
use serde::Serialize;
use serde_json::Value;

/// One row: what the archive says, or what the table holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The parts of the primary key, in the order of the index.
    pub key: Vec<String>,
    /// The other columns that follow from the log, by name.
    pub columns: BTreeMap<String, Value>,
}

impl Row {
    /// A row without columns yet.
    pub fn new<const N: usize>(key: [&str; N]) -> Self {
        Self {
            key: key.map(str::to_owned).to_vec(),
            columns: BTreeMap::new(),
        }
    }

    /// Adds a column.
    ///
    /// # Panics
    /// When the value has no JSON form; records and their parts have one.
    #[must_use]
    pub fn with(mut self, column: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("columns are plain data with text keys");
        self.columns.insert(column.to_owned(), value);
        self
    }

    /// Adds the position of the entry behind the row.
    #[must_use]
    pub fn at(self, position: nixfleet_proto::Position) -> Self {
        self.with("inputSeq", position.seq)
            .with("inputIndex", position.index)
    }
}

/// A time as its column holds it, in microseconds since 1970.
pub fn column_micros(at: Timestamp) -> i64 {
    column_time(at).timestamp_micros()
}
