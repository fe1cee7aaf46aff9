//! The limit of the applier: rows that are columns of texts already, one prepared statement per
//! table, and a commit.

use anyhow::{Context as _, Result};
use nixfleet_harness::{Database, Service};
use nixfleet_proto::rows::{HostKey, Stamp, TurnRows};
use serde_json::json;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

/// Updates rows that are there.
const UPDATE_HOSTS: &str = "
UPDATE nixfleet.host_rollout_records AS r
SET record = n.record::jsonb, input_seq = n.seq, input_index = n.index, traceparent = n.traceparent
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (rollout_id, hostname, record, seq, index, traceparent)
WHERE r.rollout_id = n.rollout_id AND r.hostname = n.hostname";
const UPSERT_PLAIN: &str = "
INSERT INTO nixfleet.plain_records
SELECT n.rollout_id, n.hostname, n.record::jsonb, n.seq, n.index, n.traceparent
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (rollout_id, hostname, record, seq, index, traceparent)
ON CONFLICT (rollout_id, hostname) DO UPDATE
SET record = excluded.record, seq = excluded.seq, index = excluded.index,
    traceparent = excluded.traceparent";
const CREATE_PLAIN: &str = "
CREATE TABLE nixfleet.plain_records (
    rollout_id text COLLATE \"C\" NOT NULL, hostname text COLLATE \"C\" NOT NULL,
    record jsonb NOT NULL, seq bigint NOT NULL, index bigint NOT NULL, traceparent text,
    PRIMARY KEY (rollout_id, hostname)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT, UPDATE ON nixfleet.plain_records TO nixfleet_applier";
const UPSERT_DISPATCHES: &str = "
INSERT INTO nixfleet.dispatch_queue (rollout_id, hostname, record, input_seq, input_index, traceparent)
SELECT n.rollout_id, n.hostname, n.record::jsonb, n.seq, n.index, n.traceparent
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (rollout_id, hostname, record, seq, index, traceparent)
ON CONFLICT (rollout_id, hostname) DO UPDATE
SET record = excluded.record, input_seq = excluded.input_seq, input_index = excluded.input_index,
    traceparent = excluded.traceparent";
const DELETE_DISPATCHES: &str = "
DELETE FROM nixfleet.dispatch_queue AS d
USING unnest($1::text[], $2::text[]) AS n (rollout_id, hostname)
WHERE d.rollout_id = n.rollout_id AND d.hostname = n.hostname";
const UPDATE_ROLLOUTS: &str = "
UPDATE nixfleet.rollouts AS r
SET record = n.record::jsonb, input_seq = n.seq, input_index = n.index, traceparent = n.traceparent
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (rollout_id, hostname, record, seq, index, traceparent)
WHERE r.rollout_id = n.rollout_id";

/// Records with their keys, by column.
#[derive(Default)]
struct Records {
    ids: Vec<String>,
    hostnames: Vec<String>,
    records: Vec<String>,
    seqs: Vec<i64>,
    indexes: Vec<i64>,
    traceparents: Vec<Option<String>>,
}

impl Records {
    fn push(&mut self, (id, hostname): (&str, &str), record: String, stamp: &Stamp) -> Result<()> {
        self.ids.push(id.to_owned());
        self.hostnames.push(hostname.to_owned());
        self.records.push(record);
        self.seqs.push(stamp.position.seq.try_into()?);
        self.indexes.push(stamp.position.index.into());
        self.traceparents.push(stamp.traceparent.clone());
        Ok(())
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 6] {
        [
            &self.ids,
            &self.hostnames,
            &self.records,
            &self.seqs,
            &self.indexes,
            &self.traceparents,
        ]
    }
}

/// The rows of one transaction.
#[derive(Default)]
pub struct Columns {
    hosts: Records,
    rollouts: Records,
    queued: Records,
    removed: (Vec<String>, Vec<String>),
}

impl Columns {
    /// What changes in the tables; statements that find nothing are left out.
    ///
    /// # Errors
    /// When a record has no JSON form.
    pub fn of(rows: &TurnRows) -> Result<Self> {
        let mut columns = Self::default();
        for ((id, hostname), change) in &rows.hosts {
            let record = serde_json::to_string(&*change.record)?;
            let key = (id.as_str(), hostname.as_str());
            columns.hosts.push(key, record, &change.stamp)?;
        }
        for (id, change) in &rows.rollouts {
            let record = serde_json::to_string(&change.record)?;
            columns
                .rollouts
                .push((id.as_str(), ""), record, &change.stamp)?;
        }
        for ((id, hostname), change) in &rows.dispatches {
            columns.dispatch(&(id.clone(), hostname.clone()), change.as_ref())?;
        }
        Ok(columns)
    }

    fn dispatch(
        &mut self,
        (id, hostname): &HostKey,
        change: Option<&nixfleet_proto::rows::DispatchChange>,
    ) -> Result<()> {
        let (id, hostname) = (id.as_str(), hostname.as_str());
        let Some(change) = change else {
            self.removed.0.push(id.to_owned());
            self.removed.1.push(hostname.to_owned());
            return Ok(());
        };
        let record = json!({
            "targetClosure": change.target_closure,
            "soakMinutes": change.soak_minutes,
            "enqueuedAt": change.stamp.at,
        });
        self.queued
            .push((id, hostname), record.to_string(), &change.stamp)
    }

    /// How many rows change. A dispatch that comes and goes within a transaction has no row to remove.
    pub fn rows(&self) -> usize {
        self.hosts.ids.len() + self.rollouts.ids.len() + self.queued.ids.len()
    }
}

/// Which tables the limit writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Those of the services.
    Real,
    /// For the records of hosts, one that derives no columns from them.
    Plain,
}

/// Prepared statements of one connection.
pub struct Writer {
    client: Client,
    hosts: Statement,
    rollouts: Statement,
    queued: Statement,
    removed: Statement,
}

impl Tables {
    /// A connection as the applier's user with everything prepared.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn writer(self, database: &Database) -> Result<Writer> {
        let hosts = match self {
            Self::Real => UPDATE_HOSTS,
            Self::Plain => {
                let owner = connect(&database.url).await?;
                owner.batch_execute(CREATE_PLAIN).await?;
                UPSERT_PLAIN
            }
        };
        let client = connect(&database.url_of(Service::Applier)).await?;
        Ok(Writer {
            hosts: client.prepare(hosts).await?,
            rollouts: client.prepare(UPDATE_ROLLOUTS).await?,
            queued: client.prepare(UPSERT_DISPATCHES).await?,
            removed: client.prepare(DELETE_DISPATCHES).await?,
            client,
        })
    }
}

impl Writer {
    /// Writes one transaction; says how many rows were written, those removed not counted.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn write(&mut self, columns: &Columns) -> Result<u64> {
        let transaction = self.client.transaction().await?;
        let mut rows = 0;
        for (statement, records) in [
            (&self.rollouts, &columns.rollouts),
            (&self.hosts, &columns.hosts),
            (&self.queued, &columns.queued),
        ] {
            if !records.ids.is_empty() {
                rows += transaction
                    .execute(statement, &records.parameters())
                    .await?;
            }
        }
        let (ids, hostnames) = &columns.removed;
        if !ids.is_empty() {
            transaction
                .execute(&self.removed, &[ids, hostnames])
                .await?;
        }
        transaction.commit().await?;
        Ok(rows)
    }
}

/// A connection of its own.
///
/// # Errors
/// When the server refuses.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("connecting to Postgres")?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("nixfleet-bench: a connection to Postgres broke: {error}");
        }
    });
    Ok(client)
}
