//! Inserting a rollout with all its hosts.

use deadpool_postgres::Transaction;
use nixfleet_proto::HostRecord;
use nixfleet_proto::rollout::PinnedHost;
use nixfleet_proto::subject::Partition;

use crate::binary_copy::copy;
use crate::error::ApplyError;
use crate::parameter_encoding::column_value::{column_minutes, column_time};
use crate::parameter_encoding::column_value::{column_seq, record_json};
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use crate::stored_json::PinnedTerms;
use nixfleet_proto::turn_rows::OpenedRollout;

/// Hosts per COPY, so that one statement stays far below the statement timeout.
const HOSTS_PER_COPY: usize = 20_000;

/// Number of columns that the statement names.
const HOST_COLUMNS: i16 = 13;

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
    let input_seq = column_seq("the input sequence", opened.stamp.position.seq)?;
    let input_index = i64::from(opened.stamp.position.index);
    let rollout_id = encode(opened.record.rollout_id.as_str());
    let traceparent = opened.stamp.traceparent.as_deref().map(encode);
    copy(
        transaction,
        sql!("hosts_copy"),
        hosts,
        |rows, (host, record)| {
            rows.row(HOST_COLUMNS);
            rows.text(Some(&rollout_id));
            rows.text(Some(&encode(host.hostname.as_str())));
            rows.int4(i32::from(partition.number()));
            rows.int8(Some(i64::from(host.wave_index)));
            rows.bool(host.staged);
            rows.text(Some(&record_json(&record)?));
            rows.int8(Some(input_seq));
            rows.int8(Some(input_index));
            rows.text(traceparent.as_deref());
            rows.text(Some(&encode(record.channel.as_str())));
            rows.text(Some(&encode(record.target_closure.as_str())));
            rows.float8(column_minutes(record.soak_minutes));
            rows.time(column_time(record.dispatched_at));
            Ok(())
        },
    )
    .await
}
