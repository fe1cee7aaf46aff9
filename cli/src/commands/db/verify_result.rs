//! Result of a verification.

use std::collections::BTreeMap;

use nixfleet_replay::{Coverage, Difference};
use serde::Serialize;
use serde_json::Value;

use super::archive_gaps::Gap;
use crate::command_error::CommandError;
use crate::stdout;
use crate::table::{add_row, render, table};

const SHOWN_CHARS: usize = 48;

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResult {
    /// By number.
    pub partitions: Vec<PartitionResult>,
    /// Missing parts of the archive that a loss explains.
    pub gaps: Vec<Gap>,
    /// Messages of the streams that were compared with the archive; absent when none were to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_messages: Option<u64>,
    /// Rows of every table.
    pub rows: BTreeMap<String, u64>,
    /// Differences in the order of their discovery, up to the limit.
    pub differences: Vec<FoundDifference>,
    /// Number of differences, those not shown included.
    pub difference_count: u64,
    /// Largest number of stored differences.
    #[serde(skip)]
    pub limit: usize,
}

/// Counts of what was replayed and compared in a partition.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionResult {
    pub partition: u16,
    /// First output sequence that the archive holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The output sequence of the compared tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// The archive begins with the first frame of the partition.
    pub is_whole: bool,
    pub frames: u64,
    pub outcomes: u64,
    /// Entries whose outcome was decided again.
    pub decided: u64,
    /// Outcomes without the input to decide them again.
    pub unchecked: u64,
    pub rows: u64,
    /// Rows of rollouts that were opened before the archive begins.
    pub uncovered: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundDifference {
    /// Absent when it is of no partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u16>,
    #[serde(flatten)]
    pub difference: Difference,
}

impl PartitionResult {
    /// The result of a partition that is not replayed yet.
    pub fn new(partition: u16) -> Self {
        Self {
            partition,
            first: None,
            last: None,
            is_whole: true,
            frames: 0,
            outcomes: 0,
            decided: 0,
            unchecked: 0,
            rows: 0,
            uncovered: 0,
        }
    }

    /// Takes over what a replay covered.
    pub fn cover(&mut self, coverage: &Coverage) {
        self.is_whole = coverage.is_complete;
        self.frames = coverage.frames;
        self.outcomes = coverage.outcomes;
        self.decided = coverage.decided;
        self.unchecked = coverage.unchecked;
    }
}

impl VerifyResult {
    /// An empty result that stores at most `limit` differences.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Adds differences.
    pub fn add(&mut self, partition: Option<u16>, differences: Vec<Difference>) {
        self.difference_count += differences.len() as u64;
        let room = self.limit.saturating_sub(self.differences.len());
        let kept = differences.into_iter().take(room);
        self.differences
            .extend(kept.map(|difference| FoundDifference {
                partition,
                difference,
            }));
    }

    pub fn print(&self) -> Result<(), CommandError> {
        stdout::line(&render(&self.summary()))?;
        if let Some(hosts) = self.rows.get("hosts") {
            stdout::line(&format!(
                "hosts: {hosts} rows, from heartbeats and not from the log: not compared"
            ))?;
        }
        for partition in &self.partitions {
            self.explain(partition)?;
        }
        for Gap {
            stream,
            first,
            last,
            loss,
        } in &self.gaps
        {
            let loss = loss.unwrap_or_default();
            stdout::line(&format!(
                "{stream}: {first} to {last} are not archived: {loss}"
            ))?;
        }
        stdout::line(&match self.stream_messages {
            Some(messages) => {
                format!("{messages} messages of the streams were compared with the archive")
            }
            None => "the streams were not compared with the archive".to_owned(),
        })?;
        if self.difference_count == 0 {
            return stdout::line("no difference");
        }
        stdout::line(&format!("\n{} differences:", self.difference_count))?;
        stdout::line(&render(&self.list()))?;
        let hidden = self.difference_count - self.differences.len() as u64;
        if hidden > 0 {
            stdout::line(&format!("and {hidden} more; --limit shows more of them"))?;
        }
        Ok(())
    }

    fn explain(&self, partition: &PartitionResult) -> Result<(), CommandError> {
        let number = partition.partition;
        if !partition.is_whole {
            stdout::line(&format!(
                "partition {number}: the archive begins at output {} and not with the first frame; \
                 {} rows of rollouts opened before were not compared",
                partition.first.unwrap_or(0),
                partition.uncovered
            ))?;
        }
        if partition.unchecked > 0 {
            stdout::line(&format!(
                "partition {number}: {} outcomes were followed without deciding them again, their \
                 entries or what came before them are not archived",
                partition.unchecked
            ))?;
        }
        Ok(())
    }

    fn summary(&self) -> comfy_table::Table {
        let mut summary = table(&[
            ">PARTITION",
            ">FIRST",
            ">LAST",
            ">FRAMES",
            ">OUTCOMES",
            ">DECIDED",
            ">ROWS",
        ]);
        for partition in &self.partitions {
            let number = |number: Option<u64>| crate::table::or_dash(number);
            let cells = [
                partition.partition.to_string(),
                number(partition.first),
                number(partition.last),
                partition.frames.to_string(),
                partition.outcomes.to_string(),
                partition.decided.to_string(),
                partition.rows.to_string(),
            ];
            add_row(&mut summary, cells);
        }
        summary
    }

    fn list(&self) -> comfy_table::Table {
        let mut list = table(&[
            ">PARTITION",
            "TABLE",
            "KEY",
            "COLUMN",
            "THE ARCHIVE SAYS",
            "THERE IS",
        ]);
        for found in &self.differences {
            let difference = &found.difference;
            let column = match difference.column.as_str() {
                "" => "(row)",
                column => column,
            };
            let cells = [
                crate::table::or_dash(found.partition),
                difference.table.to_owned(),
                difference.key.join(" "),
                column.to_owned(),
                shown(difference.expected.as_ref(), difference.found.as_ref()),
                shown(difference.found.as_ref(), difference.expected.as_ref()),
            ];
            add_row(&mut list, cells);
        }
        list
    }
}

/// A value in short; of two objects only the fields in which they differ.
fn shown(value: Option<&Value>, other: Option<&Value>) -> String {
    let text = match (value, other) {
        (None, _) => return "-".to_owned(),
        (Some(Value::Object(fields)), Some(Value::Object(others))) => {
            let differing = fields
                .iter()
                .filter(|(name, field)| others.get(*name) != Some(*field));
            let parts: Vec<_> = differing
                .map(|(name, field)| format!("{name}={field}"))
                .collect();
            if parts.is_empty() {
                "(less)".to_owned()
            } else {
                parts.join(" ")
            }
        }
        (Some(Value::String(text)), _) => text.clone(),
        (Some(value), _) => value.to_string(),
    };
    if text.chars().count() <= SHOWN_CHARS {
        return text;
    }
    let short: String = text.chars().take(SHOWN_CHARS - 1).collect();
    format!("{short}…")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_shown_with_their_location() {
        let mut report = VerifyResult::new(1);
        let mut partition = PartitionResult::new(3);
        (partition.first, partition.last, partition.rows) = (Some(1), Some(40), 7);
        report.partitions.push(partition);
        report.rows.insert("hosts".to_owned(), 5);
        let difference = |state: &str| Difference {
            table: "host_rollout_records",
            key: vec!["stable@4f".to_owned(), "web-1".to_owned()],
            column: "record".to_owned(),
            expected: Some(json!({ "state": "Pending", "wave": 0 })),
            found: Some(json!({ "state": state, "wave": 0 })),
        };
        report.add(Some(3), vec![difference("Soaking"), difference("Failed")]);
        assert_eq!(report.difference_count, 2);
        insta::assert_snapshot!(render(&report.list()), @r#"
        PARTITION  TABLE                 KEY              COLUMN  THE ARCHIVE SAYS  THERE IS
                3  host_rollout_records  stable@4f web-1  record  state="Pending"   state="Soaking"
        "#);
        insta::assert_snapshot!(render(&report.summary()), @r#"
        PARTITION  FIRST  LAST  FRAMES  OUTCOMES  DECIDED  ROWS
                3      1    40       0         0        0     7
        "#);
    }

    #[test]
    fn long_values_are_truncated() {
        let long = json!("x".repeat(100));
        assert_eq!(shown(Some(&long), None).chars().count(), SHOWN_CHARS);
        assert_eq!(shown(None, Some(&long)), "-");
    }
}
