//! What the gateway for agents reads: pending dispatches, known rollouts and their hosts.

use std::collections::BTreeSet;

use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Hostname, RolloutId};

use super::{DispatchRow, GatewaySnapshot, Membership};
use crate::cursor;
use crate::error::ReadError;
use crate::load::{Key, read_transaction, text_opt};
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use crate::store::Store;
use crate::stored_json::DispatchRecord;
use crate::transaction::commit;

impl Store {
    /// All pending dispatches and the known rollouts of a partition with the cursors, as of one instant.
    pub async fn gateway_snapshot(
        &self,
        partition: Partition,
    ) -> Result<GatewaySnapshot, ReadError> {
        let mut client = self.client().await?;
        let transaction = read_transaction(&mut client).await?;
        let cursors = cursor::select_all(&transaction).await?;
        let mut dispatches = Vec::new();
        for row in &sql!("dispatches_all").query(&transaction, &[]).await? {
            let key = Key::new("dispatch_queue", row, 2);
            let record: DispatchRecord = key.json(row.get(2))?;
            dispatches.push(DispatchRow {
                hostname: key.hostname(row, 1)?,
                rollout_id: key.rollout_id(row, 0)?,
                target_closure: record.target_closure,
                soak_minutes: record.soak_minutes,
                enqueued_at: record.enqueued_at,
                position: key.position(row, 3)?,
                traceparent: text_opt(row, 5),
            });
        }
        let mut rollouts = Vec::new();
        let number = i32::from(partition.number());
        for row in &sql!("known_rollouts")
            .query(&transaction, &[&number])
            .await?
        {
            rollouts.push(Key::new("known_rollouts", row, 1).rollout_id(row, 0)?);
        }
        commit(transaction).await?;
        Ok(GatewaySnapshot {
            cursors,
            dispatches,
            rollouts,
        })
    }

    /// Those of the rollouts that were ever superseded.
    pub async fn superseded_rollouts(
        &self,
        rollout_ids: &[RolloutId],
    ) -> Result<BTreeSet<RolloutId>, ReadError> {
        let ids: Vec<_> = rollout_ids.iter().map(|id| encode(id.as_str())).collect();
        let client = self.client().await?;
        let rows = sql!("superseded_rollouts").query(&client, &[&ids]).await?;
        let rows = rows.iter();
        rows.map(|row| Key::new("known_rollouts", row, 1).rollout_id(row, 0))
            .collect()
    }

    /// Whether a host belongs to a rollout, according to the rows.
    pub async fn rollout_member(
        &self,
        rollout_id: &RolloutId,
        hostname: &Hostname,
    ) -> Result<Membership, ReadError> {
        let (id, name) = (encode(rollout_id.as_str()), encode(hostname.as_str()));
        let client = self.client().await?;
        let rows = sql!("rollout_member").query(&client, &[&id, &name]).await?;
        let found = rows.first().map(|row| (row.get(0), row.get(1)));
        Ok(match found {
            Some((true, true)) => Membership::Member,
            Some((true, false)) => Membership::NotMember,
            Some((false, _)) | None => Membership::UnknownRollout,
        })
    }
}
