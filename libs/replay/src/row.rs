//! Rows of any table in a comparable form.

use std::collections::BTreeMap;

use nixfleet_proto::{Timestamp, column_time};
use serde::Serialize;
use serde_json::Value;

/// One row, expected or found.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Parts of the primary key, in the order of the index.
    pub key: Vec<String>,
    /// Other columns that derive from the log, by name.
    pub columns: BTreeMap<String, Value>,
}

impl Row {
    /// A row without columns.
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

    /// Adds the position of the causing entry.
    #[must_use]
    pub fn at(self, position: nixfleet_proto::Position) -> Self {
        self.with("inputSeq", position.seq)
            .with("inputIndex", position.index)
    }
}

/// A time in the resolution of its column, in microseconds since 1970.
pub fn column_micros(at: Timestamp) -> i64 {
    column_time(at).timestamp_micros()
}
