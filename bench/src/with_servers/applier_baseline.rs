//! The baseline of the applier: rows that are columns of texts already, one prepared statement per
//! table, and a commit.

use anyhow::{Context as _, Result};
use nixfleet_harness::{Database, Service};
use nixfleet_proto::turn_rows::{DispatchChange, HostChange, HostKey, Stamp, TurnRows};
use nixfleet_proto::{HostRecord, Timestamp};
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Client, Statement};

use super::postgres_client::connect;

/// Updates rows that are there.
const UPDATE_HOSTS: &str = "
UPDATE nixfleet.host_rollout_records AS r
SET record = n.record, input_seq = n.seq, input_index = n.index, traceparent = n.traceparent,
    state = n.state, current_closure_at_dispatch = n.c0, current_closure = n.c1, reverted_to = n.c2,
    dispatch_acked_at = n.t0, activation_started_at = n.t1, activation_completed_at = n.t2,
    activation_failed_at = n.t3, probe_observed_first_at = n.t4, probe_failure_first_at = n.t5,
    soak_due_at = n.t6, converged_at = n.t7, failed_at = n.t8, reverted_at = n.t9,
    policy_applied = n.policy, unchanged = n.unchanged, last_event_seq = n.e0, recovery_seq = n.e1
FROM unnest($1::text[], $2::text[], $3::json[], $4::bigint[], $5::bigint[], $6::text[],
            $7::text[], $8::text[], $9::text[], $10::text[], $11::timestamptz[],
            $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
            $16::timestamptz[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[],
            $20::timestamptz[], $21::text[], $22::boolean[], $23::bigint[], $24::bigint[])
     AS n (rollout_id, hostname, record, seq, index, traceparent, state, c0, c1, c2, t0, t1, t2, t3,
           t4, t5, t6, t7, t8, t9, policy, unchanged, e0, e1)
WHERE r.rollout_id = n.rollout_id AND r.hostname = n.hostname";
const UPSERT_PLAIN: &str = "
INSERT INTO nixfleet.plain_records
SELECT n.rollout_id, n.hostname, n.record, n.seq, n.index, n.traceparent
FROM unnest($1::text[], $2::text[], $3::json[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (rollout_id, hostname, record, seq, index, traceparent)
ON CONFLICT (rollout_id, hostname) DO UPDATE
SET record = excluded.record, seq = excluded.seq, index = excluded.index,
    traceparent = excluded.traceparent";
const CREATE_PLAIN: &str = "
CREATE TABLE nixfleet.plain_records (
    rollout_id text COLLATE \"C\" NOT NULL, hostname text COLLATE \"C\" NOT NULL,
    record json NOT NULL, seq bigint NOT NULL, index bigint NOT NULL, traceparent text,
    PRIMARY KEY (rollout_id, hostname)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT, UPDATE ON nixfleet.plain_records TO nixfleet_applier";
const UPSERT_DISPATCHES: &str = "
INSERT INTO nixfleet.dispatch_queue (rollout_id, hostname, record, input_seq, input_index,
                                     traceparent, target_closure, soak_minutes, enqueued_at)
SELECT n.*
FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::bigint[], $5::bigint[], $6::text[],
            $7::text[], $8::double precision[], $9::timestamptz[])
     AS n (rollout_id, hostname, record, seq, index, traceparent, target_closure, soak_minutes,
           enqueued_at)
ON CONFLICT (rollout_id, hostname) DO UPDATE
SET record = excluded.record, input_seq = excluded.input_seq, input_index = excluded.input_index,
    traceparent = excluded.traceparent, target_closure = excluded.target_closure,
    soak_minutes = excluded.soak_minutes, enqueued_at = excluded.enqueued_at";
const DELETE_DISPATCHES: &str = "
DELETE FROM nixfleet.dispatch_queue AS d
USING unnest($1::text[], $2::text[]) AS n (rollout_id, hostname)
WHERE d.rollout_id = n.rollout_id AND d.hostname = n.hostname";
const UPDATE_ROLLOUTS: &str = "
UPDATE nixfleet.rollouts AS r
SET record = n.record, input_seq = n.seq, input_index = n.index, traceparent = n.traceparent
FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::bigint[], $5::bigint[], $6::text[])
     AS n (rollout_id, hostname, record, seq, index, traceparent)
WHERE r.rollout_id = n.rollout_id";

/// Parameters every statement begins with: key, record, position, trace context.
const KEYED: usize = 6;

type Column = Box<dyn ToSql + Sync + Send>;

/// Rows of one table as parameters of its statement.
#[derive(Default)]
struct Records {
    count: usize,
    columns: Vec<Column>,
}

/// A row to be written: key, record, and the causing entry.
type Keyed<'a> = ((&'a str, &'a str), Box<RawValue>, &'a Stamp);

impl Records {
    fn of(rows: Vec<Keyed<'_>>) -> Result<Self> {
        let count = rows.len();
        let (mut ids, mut hostnames, mut records) = (Vec::new(), Vec::new(), Vec::new());
        let (mut seqs, mut indexes, mut traceparents) = (Vec::new(), Vec::new(), Vec::new());
        for ((id, hostname), record, stamp) in rows {
            ids.push(id.to_owned());
            hostnames.push(hostname.to_owned());
            records.push(Json(record));
            seqs.push(i64::try_from(stamp.position.seq)?);
            indexes.push(i64::from(stamp.position.index));
            traceparents.push(stamp.traceparent.clone());
        }
        let columns: Vec<Column> = vec![
            Box::new(ids),
            Box::new(hostnames),
            Box::new(records),
            Box::new(seqs),
            Box::new(indexes),
            Box::new(traceparents),
        ];
        Ok(Self { count, columns })
    }

    fn add<T>(&mut self, values: impl Iterator<Item = T>)
    where
        Vec<T>: ToSql + Sync + Send + 'static,
    {
        self.columns.push(Box::new(values.collect::<Vec<T>>()));
    }
}

/// The rows of one transaction.
pub struct Columns {
    hosts: Records,
    rollouts: Records,
    queued: Records,
    removed: (Vec<String>, Vec<String>),
}

impl Columns {
    /// The columns of changed rows; statements without rows are left out.
    pub fn of(rows: &TurnRows) -> Result<Self> {
        let rollouts = rows.rollouts.iter().map(|(id, change)| {
            let record = raw(&change.record)?;
            Ok(((id.as_str(), ""), record, &change.stamp))
        });
        let rollouts = rollouts.collect::<Result<_>>()?;
        let removed = rows
            .dispatches
            .iter()
            .filter(|(_, change)| change.is_none());
        let removed = removed.map(|((id, hostname), _)| (id.to_string(), hostname.to_string()));
        let queued = rows.dispatches.iter();
        let queued = queued.filter_map(|(key, change)| Some((key, change.as_ref()?)));
        Ok(Self {
            hosts: hosts(&rows.hosts.iter().collect::<Vec<_>>())?,
            rollouts: Records::of(rollouts)?,
            queued: dispatches(&queued.collect::<Vec<_>>())?,
            removed: removed.unzip(),
        })
    }

    /// Number of changed rows. A dispatch that is queued and removed within a transaction has none.
    pub fn rows(&self) -> usize {
        self.hosts.count + self.rollouts.count + self.queued.count
    }
}

fn raw(record: &impl Serialize) -> Result<Box<RawValue>> {
    to_raw_value(record).context("encoding a record")
}

fn hosts(rows: &[(&HostKey, &HostChange)]) -> Result<Records> {
    let keyed = rows.iter().map(|((id, hostname), change)| {
        let record = raw(&*change.record)?;
        Ok(((id.as_str(), hostname.as_str()), record, &change.stamp))
    });
    let mut records = Records::of(keyed.collect::<Result<_>>()?)?;
    let all = || rows.iter().map(|(_, change)| &*change.record);
    records.add(all().map(|record| record.state.name()));
    let closures: [fn(&HostRecord) -> Option<String>; 3] = [
        |record| Some(record.current_closure_at_dispatch.as_ref()?.to_string()),
        |record| Some(record.current_closure.as_ref()?.to_string()),
        |record| Some(record.reverted_to.as_ref()?.to_string()),
    ];
    for closure in closures {
        records.add(all().map(closure));
    }
    let times: [fn(&HostRecord) -> Option<Timestamp>; 10] = [
        |record| record.dispatch_acked_at,
        |record| record.activation_started_at,
        |record| record.activation_completed_at,
        |record| record.activation_failed_at,
        |record| record.probe_observed_first_at,
        |record| record.probe_failure_first_at,
        |record| record.soak_due_at,
        |record| record.converged_at,
        |record| record.failed_at,
        |record| record.reverted_at,
    ];
    for time in times {
        records.add(all().map(time));
    }
    records.add(all().map(|record| Some(record.policy_applied?.name())));
    records.add(all().map(|record| record.unchanged));
    records.add(all().map(|record| record.last_event_seq as i64));
    records.add(all().map(|record| record.recovery_seq as i64));
    Ok(records)
}

fn dispatches(rows: &[(&HostKey, &DispatchChange)]) -> Result<Records> {
    let keyed = rows.iter().map(|((id, hostname), change)| {
        let record = raw(&json!({
            "targetClosure": change.target_closure,
            "soakMinutes": change.soak_minutes,
            "enqueuedAt": change.stamp.at,
        }))?;
        Ok(((id.as_str(), hostname.as_str()), record, &change.stamp))
    });
    let mut records = Records::of(keyed.collect::<Result<_>>()?)?;
    let all = || rows.iter().map(|(_, change)| change);
    records.add(all().map(|change| change.target_closure.to_string()));
    let minutes = |change: &&DispatchChange| change.soak_minutes.delta().as_seconds_f64() / 60.0;
    records.add(all().map(minutes));
    records.add(all().map(|change| change.stamp.at));
    Ok(records)
}

/// Tables that the baseline writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
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
    /// A connection as the applier's user with all statements prepared.
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
    /// Writes a transaction; returns the number of written rows, without the removed ones.
    pub async fn write(&mut self, columns: &Columns) -> Result<u64> {
        let transaction = self.client.transaction().await?;
        let mut rows = 0;
        for (statement, records) in [
            (&self.rollouts, &columns.rollouts),
            (&self.hosts, &columns.hosts),
            (&self.queued, &columns.queued),
        ] {
            // A plain table has only the first columns.
            let wanted = statement.params().len().max(KEYED);
            let columns = records.columns.iter().take(wanted);
            let parameters: Vec<&(dyn ToSql + Sync)> = columns
                .map(|column| &**column as &(dyn ToSql + Sync))
                .collect();
            if records.count > 0 {
                rows += transaction.execute(statement, &parameters).await?;
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
