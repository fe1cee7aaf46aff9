//! Updating the records of rollouts and hosts.

use std::borrow::Cow;
use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use futures::future::try_join_all;
use nixfleet_proto::{ClosureHash, Position, RolloutId};
use tokio_postgres::types::{ToSql, Type};

use super::host_columns::HostColumns;
use crate::apply::apply_result::ApplyResult;
use crate::error::ApplyError;
use crate::parameter_encoding::column_value::{column_seq, record_json};
use crate::parameter_encoding::encoded_parameter::Encoded;
use crate::parameter_encoding::json_parameter::Json;
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use nixfleet_proto::turn_rows::{HostChange, HostKey, RolloutChange, Stamp};

/// Hosts per statement. The statements of a turn are pipelined: the database executes one while the next is
/// sent, and each takes little memory.
const HOSTS_PER_STATEMENT: usize = 256;

pub(super) type HostParams = Vec<Encoded>;

/// The columns that every row takes from its entry.
#[derive(Debug, Default)]
pub(super) struct StampColumns<'a> {
    pub(super) seqs: Vec<i64>,
    pub(super) indexes: Vec<i64>,
    pub(super) traceparents: Vec<Option<Cow<'a, str>>>,
}

impl<'a> StampColumns<'a> {
    pub(super) fn push(&mut self, stamp: &'a Stamp) -> Result<(), ApplyError> {
        self.push_position(stamp.position)?;
        self.traceparents
            .push(stamp.traceparent.as_deref().map(encode));
        Ok(())
    }

    pub(super) fn push_position(&mut self, position: Position) -> Result<(), ApplyError> {
        self.seqs
            .push(column_seq("the input sequence", position.seq)?);
        self.indexes.push(i64::from(position.index));
        Ok(())
    }
}

pub(super) async fn update_rollouts(
    transaction: &Transaction<'_>,
    changes: &BTreeMap<RolloutId, RolloutChange>,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    if changes.is_empty() {
        return Ok(());
    }
    let (mut ids, mut records) = (Vec::new(), Vec::new());
    let mut stamps = StampColumns::default();
    for (id, change) in changes {
        ids.push(encode(id.as_str()));
        records.push(record_json(&change.record)?);
        stamps.push(&change.stamp)?;
    }
    let touched = sql!("rollouts_update")
        .execute(
            transaction,
            &[
                &ids,
                &records,
                &stamps.seqs,
                &stamps.indexes,
                &stamps.traceparents,
            ],
        )
        .await?;
    applied.expect(touched, changes.len());
    Ok(())
}

/// The encoded parameters of the statements that write hosts.
pub(super) fn host_params(
    changes: &BTreeMap<HostKey, HostChange>,
) -> Result<Vec<HostParams>, ApplyError> {
    let changes: Vec<_> = changes.iter().collect();
    changes.chunks(HOSTS_PER_STATEMENT).map(params_of).collect()
}

fn params_of(changes: &[(&HostKey, &HostChange)]) -> Result<HostParams, ApplyError> {
    let (mut ids, mut hostnames, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let mut stamps = StampColumns::default();
    let mut columns = HostColumns::default();
    for &((id, hostname), change) in changes {
        ids.push(encode(id.as_str()));
        hostnames.push(encode(hostname.as_str()));
        records.push(Json(record_json(&change.record)?));
        stamps.push(&change.stamp)?;
        columns.push(&change.record);
    }
    let params: [(&(dyn ToSql + Sync), Type); 6] = [
        (&ids, Type::TEXT_ARRAY),
        (&hostnames, Type::TEXT_ARRAY),
        (&records, Type::JSON_ARRAY),
        (&stamps.seqs, Type::INT8_ARRAY),
        (&stamps.indexes, Type::INT8_ARRAY),
        (&stamps.traceparents, Type::TEXT_ARRAY),
    ];
    let params = params.into_iter().chain(columns.params());
    let encoded = params.map(|(param, ty)| Encoded::of(param, ty));
    encoded
        .collect::<Result<_, _>>()
        .map_err(|error| ApplyError::Encode(serde::ser::Error::custom(error)))
}

pub(super) async fn update_hosts(
    transaction: &Transaction<'_>,
    changes: &BTreeMap<HostKey, HostChange>,
    params: &[HostParams],
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    let statement = sql!("hosts_update");
    let parts = params.iter().map(async |part| {
        let params: Vec<&(dyn ToSql + Sync)> = part.iter().map(|param| param as _).collect();
        statement.execute(transaction, &params).await
    });
    let touched = try_join_all(parts).await?;
    applied.expect(touched.into_iter().sum(), changes.len());
    Ok(())
}

pub(super) async fn update_candidates(
    transaction: &Transaction<'_>,
    changes: &BTreeMap<HostKey, Option<ClosureHash>>,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    if changes.is_empty() {
        return Ok(());
    }
    let (mut ids, mut hostnames, mut closures) = (Vec::new(), Vec::new(), Vec::new());
    for ((id, hostname), closure) in changes {
        ids.push(encode(id.as_str()));
        hostnames.push(encode(hostname.as_str()));
        closures.push(closure.as_ref().map(|closure| encode(closure.as_str())));
    }
    let touched = sql!("candidates_update")
        .execute(transaction, &[&ids, &hostnames, &closures])
        .await?;
    applied.expect(touched, changes.len());
    Ok(())
}
