//! Rollouts and the states of their hosts.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;
use nixfleet_proto::{HostState, Hostname, ManifestHash, OnHealthFailure, RolloutId};
use tokio_postgres::Row;

use super::{RolloutFilter, RolloutView};
use crate::error::ReadError;
use crate::load::{Key, text_opt};
use crate::parameter_encoding::nul_escape::{decode, encode};
use crate::prepared_statement::sql;
use crate::store::Store;

impl Store {
    /// Rollouts, newest first, then by id.
    pub async fn rollouts(&self, filter: RolloutFilter) -> Result<Vec<RolloutView>, ReadError> {
        let states: Vec<&str> = filter.states().map(|state| state.name()).collect();
        let rows = sql!("rollouts_by_state")
            .query(&self.client().await?, &[&states])
            .await?;
        rows.iter().map(rollout_view).collect()
    }

    /// One rollout; `None` when it was never opened.
    pub async fn rollout_lifecycle(
        &self,
        rollout_id: &RolloutId,
    ) -> Result<Option<RolloutView>, ReadError> {
        let found = by_id(&self.client().await?, &[rollout_id]).await?;
        Ok(found.into_iter().next())
    }

    /// Number of hosts by state for each of these rollouts.
    pub async fn state_counts(
        &self,
        rollout_ids: &[RolloutId],
    ) -> Result<BTreeMap<RolloutId, BTreeMap<HostState, u64>>, ReadError> {
        let ids: Vec<_> = rollout_ids.iter().map(|id| encode(id.as_str())).collect();
        let rows = sql!("state_counts")
            .query(&self.client().await?, &[&ids])
            .await?;
        let mut counts: BTreeMap<RolloutId, BTreeMap<HostState, u64>> = BTreeMap::new();
        for row in &rows {
            let key = Key::new("host_rollout_records", row, 1);
            let count = u64::try_from(row.get::<_, i64>(2)).unwrap_or(0);
            counts
                .entry(key.rollout_id(row, 0)?)
                .or_default()
                .insert(host_state(&key, row.get(1))?, count);
        }
        Ok(counts)
    }

    /// State of each host of these rollouts, by rollout and host, at most `limit` of them.
    pub async fn host_states(
        &self,
        rollout_ids: &[RolloutId],
        limit: u32,
    ) -> Result<BTreeMap<RolloutId, BTreeMap<Hostname, HostState>>, ReadError> {
        let ids: Vec<_> = rollout_ids.iter().map(|id| encode(id.as_str())).collect();
        let rows = sql!("host_states")
            .query(&self.client().await?, &[&ids, &i64::from(limit)])
            .await?;
        let mut states: BTreeMap<RolloutId, BTreeMap<Hostname, HostState>> = BTreeMap::new();
        for row in &rows {
            let key = Key::new("host_rollout_records", row, 2);
            states
                .entry(key.rollout_id(row, 0)?)
                .or_default()
                .insert(key.hostname(row, 1)?, host_state(&key, row.get(2))?);
        }
        Ok(states)
    }
}

pub(super) async fn by_id(
    client: &impl GenericClient,
    rollout_ids: &[&RolloutId],
) -> Result<Vec<RolloutView>, ReadError> {
    let ids: Vec<_> = rollout_ids.iter().map(|id| encode(id.as_str())).collect();
    let rows = sql!("rollouts_by_id").query(client, &[&ids]).await?;
    rows.iter().map(rollout_view).collect()
}

fn host_state(key: &Key<'_>, name: &str) -> Result<HostState, ReadError> {
    HostState::ALL
        .into_iter()
        .find(|state| state.name() == name)
        .ok_or_else(|| key.corrupt(format!("{name:?} is not a host state")))
}

fn rollout_view(row: &Row) -> Result<RolloutView, ReadError> {
    let key = Key::new("rollouts", row, 1);
    let policy: &str = row.get(5);
    let count = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    Ok(RolloutView {
        record: key.json(row.get(1))?,
        manifest_hash: ManifestHash::from(&*decode(row.get(2))),
        host_count: count(3),
        wave_count: count(4),
        on_health_failure: [OnHealthFailure::Halt, OnHealthFailure::RollbackAndHalt]
            .into_iter()
            .find(|known| known.name() == policy)
            .ok_or_else(|| key.corrupt(format!("{policy:?} is not a policy")))?,
        position: key.position(row, 6)?,
        traceparent: text_opt(row, 8),
    })
}
