//! Comparison of the archive with the logs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nixfleet_audit::database::query;
use nixfleet_proto::{Entry, Outcome};
use serde::de::DeserializeOwned;

use crate::partition_logs::PartitionLogs;

/// Archived items of a stream by sequence and index.
type Archived<T> = BTreeMap<(u64, u32), T>;

/// Differences between the archive and the logs.
///
/// # Errors
/// When the database does not answer.
pub async fn against_logs(database_url: &str, logs: &[PartitionLogs]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for log in logs {
        let entries: Archived<Entry> = load(database_url, &log.input_stream).await?;
        let logged = log
            .entries()
            .map(|(position, _, entry)| ((position.seq, position.index), entry))
            .collect();
        compare(&log.input_stream, &entries, &logged, &mut faults);
        let outcomes: Archived<Outcome> = load(database_url, &log.output_stream).await?;
        let logged = log
            .outputs
            .iter()
            .flat_map(|output| {
                let outcomes = (0_u32..).zip(&output.frame.outcomes);
                outcomes.map(|(index, outcome)| ((output.seq, index), outcome))
            })
            .collect();
        compare(&log.output_stream, &outcomes, &logged, &mut faults);
    }
    Ok(faults)
}

async fn load<T: DeserializeOwned>(database_url: &str, stream: &str) -> Result<Archived<T>> {
    let rows = query(
        database_url,
        "SELECT sequence, index, payload::text FROM archive_items WHERE stream = $1 AND index >= 0",
        &[&stream],
    )
    .await?;
    rows.iter()
        .map(|row| {
            let (seq, index): (i64, i32) = (row.get(0), row.get(1));
            let payload = serde_json::from_str(row.get(2))
                .with_context(|| format!("reading {seq}/{index} of the archived {stream}"))?;
            Ok(((u64::try_from(seq)?, u32::try_from(index)?), payload))
        })
        .collect()
}

fn compare<T: PartialEq>(
    stream: &str,
    archived: &Archived<T>,
    logged: &Archived<&T>,
    faults: &mut Vec<String>,
) {
    for ((seq, index), item) in logged {
        match archived.get(&(*seq, *index)) {
            Some(found) if found == *item => {}
            Some(_) => faults.push(format!("{stream} {seq}/{index}: archived otherwise")),
            None => faults.push(format!("{stream} {seq}/{index}: not archived")),
        }
    }
    for (seq, index) in archived.keys().filter(|key| !logged.contains_key(*key)) {
        faults.push(format!("{stream} {seq}/{index}: archived, not in the log"));
    }
}
