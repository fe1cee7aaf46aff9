//! Compares the rows of the tables with what follows from the archive.

use std::collections::BTreeSet;

use anyhow::anyhow;
use nixfleet_proto::RolloutId;
use nixfleet_proto::subject::Partition;
use nixfleet_replay::{Comparison, Replay, Row, expected_rows};
use nixfleet_store::{AuditScope, TableRow};

use super::Verification;
use crate::command_error::CommandError;
use crate::commands::db::database_options::Database as _;
use crate::commands::db::verify_result::PartitionResult;

impl Verification<'_> {
    pub(super) async fn compare_rows(
        &mut self,
        replay: &Replay,
        partition: Partition,
        summary: &mut PartitionResult,
    ) -> Result<(), CommandError> {
        let number = partition.number();
        let known = |row: &Row| is_known(replay, row);
        if replay.coverage().is_complete {
            let cursor = expected_rows::cursor(replay, number);
            self.table(AuditScope::Cursor(partition), cursor, summary, known)
                .await?;
        }
        let found = self
            .table(
                AuditScope::Rollouts(partition),
                expected_rows::rollouts(replay),
                summary,
                known,
            )
            .await?;
        let quarantined = expected_rows::quarantines(replay);
        let covered = |row: &Row| is_covered(replay, row);
        self.table(
            AuditScope::Quarantines(partition),
            quarantined,
            summary,
            covered,
        )
        .await?;
        let mut ids: BTreeSet<RolloutId> = replay.state().rollouts().keys().cloned().collect();
        ids.extend(
            found
                .into_iter()
                .filter_map(|key| key.first()?.parse().ok()),
        );
        for id in &ids {
            self.rollout(replay, id, summary).await?;
        }
        Ok(())
    }

    async fn rollout(
        &mut self,
        replay: &Replay,
        id: &RolloutId,
        summary: &mut PartitionResult,
    ) -> Result<(), CommandError> {
        let known = |row: &Row| is_known(replay, row);
        let hosts = expected_rows::hosts(replay, id);
        self.table(AuditScope::Hosts(id), hosts, summary, known)
            .await?;
        let failures = expected_rows::probe_failures(replay, id);
        self.table(AuditScope::ProbeFailures(id), failures, summary, known)
            .await?;
        let dispatches = expected_rows::dispatches(replay, id);
        self.table(AuditScope::Dispatches(id), dispatches, summary, known)
            .await?;
        let blocks = expected_rows::blocks(replay, id).into_iter();
        self.table(AuditScope::Blocks(id), blocks, summary, known)
            .await?;
        Ok(())
    }

    /// Compares the rows of one table for a partition and returns their keys, for rollouts.
    async fn table(
        &mut self,
        scope: AuditScope<'_>,
        expected: impl Iterator<Item = Row>,
        summary: &mut PartitionResult,
        covered: impl Fn(&Row) -> bool,
    ) -> Result<Vec<Vec<String>>, CommandError> {
        let keeps_keys = matches!(scope, AuditScope::Rollouts(_));
        // Hosts name their probes, and the database orders what it had to escape otherwise.
        let sorts = matches!(scope, AuditScope::ProbeFailures(_));
        let mut comparison = Comparison::new(scope.table(), expected);
        let mut keys = Vec::new();
        let mut unsorted = Vec::new();
        let mut rows = self.audit.rows(scope).await.or_database()?;
        while let Some(row) = rows.next().await.or_database()? {
            let row = parse(row)?;
            if keeps_keys {
                keys.push(row.key.clone());
            }
            if !covered(&row) {
                summary.uncovered += 1;
            } else if sorts {
                unsorted.push(row);
            } else {
                comparison.found(row);
                self.result
                    .add(Some(summary.partition), comparison.differences());
            }
        }
        unsorted.sort_by(|a, b| a.key.cmp(&b.key));
        unsorted.into_iter().for_each(|row| comparison.found(row));
        let (rows, differences) = comparison.finish();
        summary.rows += rows;
        self.result.add(Some(summary.partition), differences);
        Ok(keys)
    }
}

fn is_known(replay: &Replay, row: &Row) -> bool {
    let id = row.key.first().and_then(|id| id.parse().ok());
    id.is_none_or(|id| replay.knows(&id))
}

/// A quarantine from before the archive cannot be compared.
fn is_covered(replay: &Replay, row: &Row) -> bool {
    let begins = replay.begins_at().map_or(0, |position| position.seq);
    let seq = row
        .columns
        .get("inputSeq")
        .and_then(serde_json::Value::as_u64);
    replay.coverage().is_complete || seq.is_none_or(|seq| seq >= begins)
}

fn parse(row: TableRow) -> Result<Row, CommandError> {
    let columns = serde_json::from_str(&row.columns);
    let columns = columns.map_err(|fault| {
        let key = row.key.join(" ");
        CommandError::refused(anyhow!(fault).context(format!("the row {key} cannot be read")))
    })?;
    Ok(Row {
        key: row.key,
        columns,
    })
}
