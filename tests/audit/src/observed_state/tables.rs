//! Queries of the tables and the archive.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::database::query;

/// A row of `host_rollout_records`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// Wave, from 0.
    pub wave: i64,
    /// State by name.
    pub state: String,
    /// Target closure of the manifest.
    pub target_closure: String,
    /// Closure that the host reported.
    pub current_closure: Option<String>,
}

/// A row of `rollouts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRow {
    /// State by name.
    pub state: String,
    /// The successor.
    pub superseded_by: Option<String>,
}

/// Counts of the archive.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ArchiveCounts {
    /// Entries of the input logs.
    pub entries: i64,
    /// Outcomes of the output logs.
    pub outcomes: i64,
    /// Host events from agents, by rollout and host, each sequence counted once.
    pub events: BTreeMap<(String, String), u64>,
    /// Host events from agents, summed over all hosts.
    pub events_in: i64,
    /// Seconds from the first to the last of them.
    pub events_seconds: f64,
    /// Largest number of them in one second.
    pub events_peak: i64,
    /// Rejections by entry, producer and reason.
    pub rejections: BTreeMap<(String, String, String), i64>,
    /// An example of each rejection.
    pub examples: BTreeMap<(String, String, String), String>,
    /// Entries by producer: `agent`, `recovery`, `planner`, `operator`.
    pub writers: BTreeMap<String, i64>,
}

/// The first column of the first row.
pub async fn count(url: &str, sql: &str) -> Result<i64> {
    let rows = query(url, sql, &[]).await?;
    Ok(rows.first().context("no row")?.get(0))
}

/// Every host record.
pub async fn hosts(url: &str) -> Result<BTreeMap<(String, String), HostRow>> {
    let rows = query(
        url,
        "SELECT rollout_id, hostname, wave, state, target_closure, current_closure
         FROM host_rollout_records",
        &[],
    )
    .await?;
    let row = |row: &tokio_postgres::Row| HostRow {
        wave: row.get(2),
        state: row.get(3),
        target_closure: row.get(4),
        current_closure: row.get(5),
    };
    Ok(rows
        .iter()
        .map(|found| ((found.get(0), found.get(1)), row(found)))
        .collect())
}

/// Every rollout.
pub async fn rollouts(url: &str) -> Result<BTreeMap<String, RolloutRow>> {
    let rows = query(
        url,
        "SELECT rollout_id, state, superseded_by FROM rollouts",
        &[],
    )
    .await?;
    let row = |row: &tokio_postgres::Row| RolloutRow {
        state: row.get(1),
        superseded_by: row.get(2),
    };
    Ok(rows
        .iter()
        .map(|found| (found.get(0), row(found)))
        .collect())
}

/// The archive's counts.
pub async fn archive(url: &str) -> Result<ArchiveCounts> {
    let mut observed = ArchiveCounts {
        entries: count(
            url,
            "SELECT count(*) FROM event_log WHERE stream LIKE '%\\_IN\\___'",
        )
        .await?,
        outcomes: count(
            url,
            "SELECT count(*) FROM archive_items WHERE kind IN ('accepted', 'rejected')",
        )
        .await?,
        ..ArchiveCounts::default()
    };
    events(url, &mut observed).await?;
    rejections(url, &mut observed).await?;
    Ok(observed)
}

async fn events(url: &str, observed: &mut ArchiveCounts) -> Result<()> {
    let rows = query(
        url,
        "SELECT rollout_id, hostname, count(DISTINCT payload #>> '{body,event,seq}')
         FROM event_log
         WHERE stream LIKE '%\\_IN\\___' AND payload #>> '{body,producer}' = 'agent'
         GROUP BY 1, 2",
        &[],
    )
    .await?;
    for row in rows {
        let events = u64::try_from(row.get::<_, i64>(2))?;
        observed.events.insert((row.get(0), row.get(1)), events);
    }
    let rows = query(
        url,
        "WITH agent AS (
             SELECT ts FROM event_log
             WHERE stream LIKE '%\\_IN\\___' AND payload #>> '{body,producer}' = 'agent')
         SELECT count(*), coalesce(extract(epoch FROM max(ts) - min(ts)), 0)::float8,
                coalesce((SELECT max(n) FROM (SELECT count(*) AS n FROM agent
                          GROUP BY date_trunc('second', ts)) AS seconds), 0)
         FROM agent",
        &[],
    )
    .await?;
    let row = rows.first().context("no row")?;
    observed.events_in = row.get(0);
    observed.events_seconds = row.get(1);
    observed.events_peak = row.get(2);
    Ok(())
}

async fn rejections(url: &str, observed: &mut ArchiveCounts) -> Result<()> {
    let rows = query(
        url,
        "SELECT coalesce(payload #>> '{subject,event}', payload #>> '{subject,entry}', '?'),
                coalesce(payload #>> '{subject,producer}', 'plan'),
                coalesce(payload #>> '{rejected,reason}', '?'),
                count(*), min(payload::text)
         FROM archive_items WHERE kind = 'rejected' GROUP BY 1, 2, 3",
        &[],
    )
    .await?;
    for row in rows {
        let key: (String, String, String) = (row.get(0), row.get(1), row.get(2));
        observed.examples.insert(key.clone(), row.get(4));
        observed.rejections.insert(key, row.get(3));
    }
    let rows = query(
        url,
        "SELECT coalesce(payload #>> '{subject,producer}',
                CASE WHEN payload #>> '{subject,entry}' IN ('OperatorClearance', 'ClearQuarantine')
                     THEN 'operator'
                     WHEN payload #>> '{subject,entry}' = 'RecoveryCandidate' THEN 'recovery'
                     ELSE 'planner' END), count(*)
         FROM archive_items WHERE kind IN ('accepted', 'rejected') GROUP BY 1",
        &[],
    )
    .await?;
    for row in rows {
        observed.writers.insert(row.get(0), row.get(1));
    }
    Ok(())
}
