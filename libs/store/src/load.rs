//! Loads the rows of a partition in the form from which the fold restores its state.

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use deadpool_postgres::{GenericClient, Transaction};
use futures::StreamExt;
use nixfleet_proto::host::FailedControl;
use nixfleet_proto::rollout::PinnedHost;
use nixfleet_proto::snapshot::{
    BlockRow, Cause, HostRow, PartitionSnapshot, ProbeFailureRow, QuarantineRow, RolloutRow,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    ChannelName, ClosureHash, Gate, HostRecord, Hostname, ManifestHash, Pinned, Position,
    ProbeName, RolloutId,
};
use serde::de::DeserializeOwned;
use tokio_postgres::{IsolationLevel, Row};

use crate::cursor;
use crate::error::{DbError, ReadError};
use crate::parameter_encoding::nul_escape::{decode, decode_json, encode};
use crate::prepared_statement::{PreparedStatement, sql};
use crate::store::Store;
use crate::stored_json::{DispatchRecord, PinnedTerms};
use crate::transaction::commit;

impl Store {
    /// All rows of one partition, read in one snapshot.
    pub async fn load_partition(
        &self,
        partition: Partition,
    ) -> Result<PartitionSnapshot, ReadError> {
        let mut client = self.client().await?;
        let transaction = read_transaction(&mut client).await?;
        let rows = Rows {
            transaction: &transaction,
            partition,
        };
        let mut rollouts = rows.load(sql!("load_rollouts"), rollout_row).await?;
        let mut hosts = Vec::new();
        for (rollout, terms) in &mut rollouts {
            let rollout_id = &rollout.record.rollout_id;
            let host_set = load_hosts(&transaction, rollout_id, &mut hosts).await?;
            rollout.pinned = terms
                .take()
                .map(|terms| terms.with_hosts(host_set).map(Arc::new))
                .transpose()
                .map_err(|fault| corrupt_rollout(rollout_id, fault))?;
        }
        let snapshot = PartitionSnapshot {
            cursor: cursor::select(&transaction, partition).await?,
            rollouts: rollouts.into_iter().map(|(rollout, _)| rollout).collect(),
            hosts,
            quarantines: rows.load(sql!("load_quarantines"), quarantine_row).await?,
            probe_failures: rows.load(sql!("load_probe_failures"), failure_row).await?,
            blocks: rows.load(sql!("load_blocks"), block_row).await?,
        };
        commit(transaction).await?;
        Ok(snapshot)
    }
}

/// Starts a read-only transaction that reads one snapshot.
pub(crate) async fn read_transaction(
    client: &mut deadpool_postgres::Object,
) -> Result<Transaction<'_>, ReadError> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(DbError::statement("begin"))
        .map_err(ReadError::Db)
}

struct Rows<'a> {
    transaction: &'a Transaction<'a>,
    partition: Partition,
}

impl Rows<'_> {
    async fn load<T>(
        &self,
        statement: PreparedStatement,
        parse: impl Fn(&Row) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let number = i32::from(self.partition.number());
        let rows = statement.query(self.transaction, &[&number]).await?;
        rows.iter().map(parse).collect()
    }
}

fn rollout_row(row: &Row) -> Result<(RolloutRow, Option<Terms>), ReadError> {
    let key = Key::new("rollouts", row, 1);
    let rollout = RolloutRow {
        record: key.json(row.get(1))?,
        manifest_hash: ManifestHash::from(&*decode(row.get(2))),
        pinned: None,
        position: key.position(row, 3)?,
    };
    let pinned: Option<PinnedTerms> = key.json_opt(row.get(5))?;
    let host_count: i64 = row.get(6);
    let terms = pinned.map(|pinned| Terms { pinned, host_count });
    Ok((rollout, terms))
}

/// Pinned policy, waves and budgets of a rollout, and its number of pinned hosts.
struct Terms {
    pinned: PinnedTerms,
    host_count: i64,
}

impl Terms {
    /// Compares the number of hosts: the host rows are the pinned set, so only the number shows a lost row.
    fn with_hosts(self, host_set: Vec<PinnedHost>) -> Result<Pinned, String> {
        let found = host_set.len();
        if i64::try_from(found) != Ok(self.host_count) {
            let pinned = self.host_count;
            return Err(format!("it pins {pinned} hosts, but {found} have a row"));
        }
        Ok(self.pinned.with_hosts(host_set))
    }
}

fn corrupt_rollout(rollout_id: &RolloutId, fault: String) -> ReadError {
    ReadError::Corrupt {
        table: "rollouts",
        key: rollout_id.to_string(),
        source: fault.into(),
    }
}

/// Appends the host rows of a rollout to `hosts` and returns its pinned hosts.
async fn load_hosts(
    client: &impl GenericClient,
    rollout_id: &RolloutId,
    hosts: &mut Vec<HostRow>,
) -> Result<Vec<PinnedHost>, ReadError> {
    // Streamed: one rollout may have a million hosts, and rows are larger than records.
    let load = sql!("load_hosts");
    let mut host_set = Vec::new();
    let mut rows = pin!(load.stream(client, &encode(rollout_id.as_str())).await?);
    while let Some(row) = rows.next().await {
        let row = row.map_err(DbError::statement(load.name))?;
        let row = &row;
        let key = Key::new("host_rollout_records", row, 2);
        let dispatch: Option<DispatchRecord> = key.json_opt(row.get(3))?;
        let queued = match dispatch {
            Some(dispatch) => Some(Cause {
                position: key.position(row, 9)?,
                at: dispatch.enqueued_at,
            }),
            None => None,
        };
        let record: HostRecord = key.json(row.get(2))?;
        host_set.push(PinnedHost {
            hostname: record.hostname.clone(),
            wave_index: key.small(row.get(7))?,
            target_closure: record.target_closure.clone(),
            staged: row.get(8),
        });
        hosts.push(HostRow {
            record: Arc::new(record),
            queued,
            recovery_candidate: text_opt(row, 4).map(ClosureHash::from),
            position: key.position(row, 5)?,
        });
    }
    Ok(host_set)
}

fn quarantine_row(row: &Row) -> Result<QuarantineRow, ReadError> {
    let key = Key::new("quarantined_closures", row, 2);
    Ok(QuarantineRow {
        channel: ChannelName::from(&*decode(row.get(0))),
        closure_hash: ClosureHash::from(&*decode(row.get(1))),
        cause: key.cause(row, 2)?,
    })
}

fn failure_row(row: &Row) -> Result<ProbeFailureRow, ReadError> {
    let key = Key::new("probe_failures", row, 3);
    Ok(ProbeFailureRow {
        rollout_id: key.rollout_id(row, 0)?,
        hostname: key.hostname(row, 1)?,
        probe_name: ProbeName::from(&*decode(row.get(2))),
        control: FailedControl {
            control_id: text_opt(row, 3),
            framework: text_opt(row, 4),
        },
        cause: key.cause(row, 5)?,
    })
}

/// Parses a row of `gate_blocks`: rollout, wave, gate, holds, sequence, index, time.
pub(crate) fn block_row(row: &Row) -> Result<BlockRow, ReadError> {
    let key = Key::new("gate_blocks", row, 1);
    let gate: &str = row.get(2);
    Ok(BlockRow {
        rollout_id: key.rollout_id(row, 0)?,
        wave: key.small(row.get::<_, i64>(1))?,
        gate: Gate::ALL
            .into_iter()
            .find(|known| known.name() == gate)
            .ok_or_else(|| key.corrupt(format!("{gate:?} is not a gate")))?,
        holds: key.json(row.get(3))?,
        cause: key.cause(row, 4)?,
    })
}

pub(crate) fn text_opt(row: &Row, column: usize) -> Option<String> {
    row.get::<_, Option<&str>>(column)
        .map(|text| decode(text).into_owned())
}

/// Table and key of a row, for errors.
pub(crate) struct Key<'a> {
    table: &'static str,
    row: &'a Row,
    columns: usize,
}

impl<'a> Key<'a> {
    /// The row's first `columns` columns of text are its key.
    pub(crate) fn new(table: &'static str, row: &'a Row, columns: usize) -> Self {
        Self {
            table,
            row,
            columns,
        }
    }

    pub(crate) fn corrupt(&self, source: impl Into<Box<dyn Error + Send + Sync>>) -> ReadError {
        let parts: Vec<&str> = (0..self.columns).map(|at| self.row.get(at)).collect();
        ReadError::Corrupt {
            table: self.table,
            key: parts.join(" "),
            source: source.into(),
        }
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, record: &str) -> Result<T, ReadError> {
        serde_json::from_str(&decode_json(record)).map_err(|fault| self.corrupt(fault))
    }

    pub(crate) fn json_opt<T: DeserializeOwned>(
        &self,
        record: Option<&str>,
    ) -> Result<Option<T>, ReadError> {
        record.map(|record| self.json(record)).transpose()
    }

    pub(crate) fn rollout_id(&self, row: &Row, column: usize) -> Result<RolloutId, ReadError> {
        decode(row.get(column))
            .parse()
            .map_err(|fault: nixfleet_proto::id::RolloutIdError| self.corrupt(fault))
    }

    pub(crate) fn hostname(&self, row: &Row, column: usize) -> Result<Hostname, ReadError> {
        decode(row.get(column))
            .parse()
            .map_err(|fault: nixfleet_proto::HostnameError| self.corrupt(fault))
    }

    pub(crate) fn hostname_opt(
        &self,
        row: &Row,
        column: usize,
    ) -> Result<Option<Hostname>, ReadError> {
        let name = text_opt(row, column).map(|name| name.parse());
        let name = name.transpose();
        name.map_err(|fault: nixfleet_proto::HostnameError| self.corrupt(fault))
    }

    pub(crate) fn small(&self, value: i64) -> Result<u32, ReadError> {
        u32::try_from(value).map_err(|fault| self.corrupt(fault))
    }

    /// Reads a position from two columns and a time from the third.
    fn cause(&self, row: &Row, column: usize) -> Result<Cause, ReadError> {
        Ok(Cause {
            position: self.position(row, column)?,
            at: row.get(column + 2),
        })
    }

    pub(crate) fn position(&self, row: &Row, column: usize) -> Result<Position, ReadError> {
        let seq: i64 = row.get(column);
        Ok(Position {
            seq: u64::try_from(seq).map_err(|fault| self.corrupt(fault))?,
            index: self.small(row.get(column + 1))?,
        })
    }
}
