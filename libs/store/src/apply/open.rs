//! Inserting a rollout with its whole host set.

use std::pin::pin;

use deadpool_postgres::Transaction;
use nixfleet_proto::HostRecord;
use nixfleet_proto::rollout::PinnedHost;
use nixfleet_proto::subject::Partition;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use super::{column_seq, record_json};
use crate::error::{ApplyError, DbError};
use crate::json::Json;
use crate::rows::{OpenedRollout, PinnedTerms};
use crate::sql::sql;
use crate::text::{column_minutes, column_time, encode};

/// Hosts per COPY: one statement stays far below the statement timeout.
const HOSTS_PER_COPY: usize = 20_000;

const HOST_COLUMNS: [Type; 13] = [
    Type::TEXT,
    Type::TEXT,
    Type::INT4,
    Type::INT8,
    Type::BOOL,
    Type::JSON,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::FLOAT8,
    Type::TIMESTAMPTZ,
];

pub(super) async fn insert(
    transaction: &Transaction<'_>,
    partition: Partition,
    opened: &OpenedRollout,
) -> Result<u64, ApplyError> {
    let pinned = &opened.pinned;
    let position = opened.stamp.position;
    sql!("rollout_insert")
        .execute(
            transaction,
            &[
                &encode(opened.record.rollout_id.as_str()),
                &i32::from(partition.number()),
                &record_json(&opened.record)?,
                &encode(opened.manifest_hash.as_str()),
                &(pinned.host_set.len() as i64),
                &(pinned.waves.len() as i64),
                &pinned.on_health_failure.name(),
                &column_seq("the input sequence", position.seq)?,
                &i64::from(position.index),
                &opened.stamp.traceparent.as_deref().map(encode),
                &record_json(&PinnedTerms::from(&**pinned))?,
            ],
        )
        .await?;
    let mut records = pinned.pending_hosts(&opened.record.rollout_id, opened.stamp.at);
    for hosts in pinned.host_set.chunks(HOSTS_PER_COPY) {
        copy_hosts(
            transaction,
            partition,
            opened,
            hosts.iter().zip(&mut records),
        )
        .await?;
    }
    Ok(1 + pinned.host_set.len() as u64)
}

async fn copy_hosts<'a>(
    transaction: &Transaction<'_>,
    partition: Partition,
    opened: &OpenedRollout,
    hosts: impl Iterator<Item = (&'a PinnedHost, HostRecord)>,
) -> Result<(), ApplyError> {
    let copy = sql!("hosts_copy");
    let failed = || DbError::statement(copy.name);
    let sink = transaction.copy_in(copy.text).await.map_err(failed())?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &HOST_COLUMNS));
    let input_seq = column_seq("the input sequence", opened.stamp.position.seq)?;
    let input_index = i64::from(opened.stamp.position.index);
    let rollout_id = encode(opened.record.rollout_id.as_str());
    let traceparent = opened.stamp.traceparent.as_deref().map(encode);
    for (host, record) in hosts {
        let json = record_json(&record)?;
        writer
            .as_mut()
            .write(&[
                &rollout_id,
                &encode(host.hostname.as_str()),
                &i32::from(partition.number()),
                &i64::from(host.wave_index),
                &host.staged,
                &Json(&json),
                &input_seq,
                &input_index,
                &traceparent,
                &encode(record.channel.as_str()),
                &encode(record.target_closure.as_str()),
                &column_minutes(record.soak_minutes),
                &column_time(record.dispatched_at),
            ])
            .await
            .map_err(failed())?;
    }
    writer.finish().await.map_err(failed())?;
    Ok(())
}
