//! Compares expected rows with the rows of a table.

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::Value;

use crate::row::Row;

/// One difference from the archive.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The table; `outcomes` and `state` for published outcomes and state hashes.
    pub table: &'static str,
    /// Primary key of the row.
    pub key: Vec<String>,
    /// The column; empty for a missing or surplus row.
    pub column: String,
    /// Value that derives from the archive; absent for a surplus row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Value>,
    /// Value in the table; absent for a missing row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Value>,
}

/// Comparison of one table, or a part of it, with both sides in the order of the key.
#[derive(Debug)]
pub struct Comparison<I: Iterator<Item = Row>> {
    table: &'static str,
    expected: std::iter::Peekable<I>,
    rows: u64,
    differences: Vec<Difference>,
}

impl<I: Iterator<Item = Row>> Comparison<I> {
    /// A comparison with the expected rows.
    pub fn new(table: &'static str, expected: I) -> Self {
        Self {
            table,
            expected: expected.peekable(),
            rows: 0,
            differences: Vec::new(),
        }
    }

    /// Compares the next row of the table.
    pub fn found(&mut self, found: Row) {
        self.rows += 1;
        loop {
            let order = self
                .expected
                .peek()
                .map_or(Ordering::Greater, |expected| expected.key.cmp(&found.key));
            match order {
                Ordering::Less => self.missing(),
                Ordering::Equal => {
                    if let Some(expected) = self.expected.next() {
                        self.columns(expected, found);
                    }
                    return;
                }
                Ordering::Greater => {
                    let surplus = Value::Object(found.columns.into_iter().collect());
                    self.push_difference(found.key, String::new(), (None, Some(surplus)));
                    return;
                }
            }
        }
    }

    /// Ends the comparison; returns the number of rows of the table and the differences.
    pub fn finish(mut self) -> (u64, Vec<Difference>) {
        while self.expected.peek().is_some() {
            self.missing();
        }
        (self.rows, self.differences)
    }

    /// The differences so far; returns each once.
    pub fn differences(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.differences)
    }

    fn missing(&mut self) {
        if let Some(row) = self.expected.next() {
            let wanted = Value::Object(row.columns.into_iter().collect());
            self.push_difference(row.key, String::new(), (Some(wanted), None));
        }
    }

    fn columns(&mut self, expected: Row, mut found: Row) {
        for (column, wanted) in expected.columns {
            let there = found.columns.remove(&column).unwrap_or(Value::Null);
            if wanted != there {
                let both = (Some(wanted), Some(there));
                self.push_difference(expected.key.clone(), column, both);
            }
        }
        // An unexpected column is a difference only when it has a value.
        for (column, there) in found.columns {
            if there != Value::Null {
                self.push_difference(expected.key.clone(), column, (None, Some(there)));
            }
        }
    }

    fn push_difference(
        &mut self,
        key: Vec<String>,
        column: String,
        (expected, found): (Option<Value>, Option<Value>),
    ) {
        self.differences.push(Difference {
            table: self.table,
            key,
            column,
            expected,
            found,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, state: &str) -> Row {
        Row::new([key]).with("state", state)
    }

    fn check(expected: &[Row], found: &[Row], differences: &[(&str, &str, bool, bool)]) {
        let mut comparison = Comparison::new("t", expected.iter().cloned());
        for row in found {
            comparison.found(row.clone());
        }
        let (rows, actual) = comparison.finish();
        let actual: Vec<_> = actual
            .iter()
            .map(|d| {
                (
                    d.key[0].as_str(),
                    d.column.as_str(),
                    d.expected.is_some(),
                    d.found.is_some(),
                )
            })
            .collect();
        assert_eq!(actual, differences);
        assert_eq!(rows, found.len() as u64);
    }

    #[test]
    fn equal_sides_have_no_difference() {
        let rows = [row("a", "x"), row("b", "y")];
        check(&rows, &rows, &[]);
        check(&[], &[], &[]);
    }

    #[test]
    fn rows_missing_surplus_and_changed_are_named() {
        let expected = [row("a", "x"), row("c", "x"), row("d", "x"), row("f", "x")];
        let found = [row("b", "x"), row("c", "y"), row("d", "x"), row("e", "x")];
        let wanted = [
            ("a", "", true, false),
            ("b", "", false, true),
            ("c", "state", true, true),
            ("e", "", false, true),
            ("f", "", true, false),
        ];
        check(&expected, &found, &wanted);
    }

    #[test]
    fn an_empty_column_without_an_expected_value_is_no_difference() {
        let found = row("a", "x").with("more", None::<&str>);
        check(&[row("a", "x")], &[found], &[]);
        let found = row("a", "x").with("more", 1);
        check(&[row("a", "x")], &[found], &[("a", "more", false, true)]);
    }
}
