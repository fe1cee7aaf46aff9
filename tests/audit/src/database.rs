//! Reading the database as an auditor would: directly, not through the services.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};

/// Schema of the services.
pub const SCHEMA: &str = "nixfleet";

/// Hosts of one wave of one rollout by state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaveCount {
    /// The channel.
    pub channel: String,
    /// The rollout.
    pub rollout_id: String,
    /// State of the rollout.
    pub rollout_state: String,
    /// The wave, from 0.
    pub wave: i64,
    /// Hosts by state.
    pub hosts: BTreeMap<String, i64>,
}

/// Rows of one statement on a new connection, because the schema may be dropped at any time.
///
/// # Errors
/// When the server cannot be reached or refuses.
pub async fn query(url: &str, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("connecting to Postgres")?;
    let driver = tokio::spawn(connection);
    let rows = async {
        client
            .batch_execute(&format!("SET search_path = {SCHEMA}"))
            .await?;
        client.query(sql, values).await
    };
    let rows = rows.await.with_context(|| format!("running {sql}"));
    drop(client);
    driver.await.context("the connection task")??;
    rows
}

/// Hosts by rollout, wave and state, of the rollouts that still count, in order.
///
/// # Errors
/// As [`query`].
pub async fn waves(url: &str) -> Result<Vec<WaveCount>> {
    let rows = query(
        url,
        "SELECT r.channel, r.rollout_id, r.state, h.wave, h.state, count(*)
         FROM rollouts r JOIN host_rollout_records h USING (rollout_id)
         WHERE r.state NOT IN ('Superseded', 'Pruned')
         GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 4, 5",
        &[],
    )
    .await?;
    let mut waves: Vec<WaveCount> = Vec::new();
    for row in rows {
        let (rollout_id, wave): (String, i64) = (row.get(1), row.get(3));
        let known = waves
            .last()
            .is_some_and(|last| last.rollout_id == rollout_id && last.wave == wave);
        if !known {
            waves.push(WaveCount {
                channel: row.get(0),
                rollout_id,
                rollout_state: row.get(2),
                wave,
                hosts: BTreeMap::new(),
            });
        }
        if let Some(last) = waves.last_mut() {
            last.hosts.insert(row.get(4), row.get(5));
        }
    }
    Ok(waves)
}

/// Closures in quarantine, as `channel closure`, in order.
///
/// # Errors
/// As [`query`].
pub async fn quarantines(url: &str) -> Result<Vec<String>> {
    let rows = query(
        url,
        "SELECT channel || ' ' || closure_hash FROM quarantined_closures ORDER BY 1",
        &[],
    )
    .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
