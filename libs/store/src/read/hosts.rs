//! Hosts and their holds.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use deadpool_postgres::GenericClient;
use nixfleet_proto::snapshot::BlockRow;
use nixfleet_proto::{ChannelName, ClosureHash, Hostname, RolloutId};
use tokio_postgres::Row;

use super::{Deferral, HostDetail, HostKey, HostView, SeenHost, rollouts};
use crate::error::ReadError;
use crate::load::{Key, block_row, read_transaction, text_opt};
use crate::parameter_encoding::nul_escape::{decode, encode};
use crate::prepared_statement::sql;
use crate::store::Store;
use crate::stored_json::DispatchRecord;
use crate::transaction::commit;

impl Store {
    /// Records of all rollouts that are neither Superseded nor Pruned, by host and rollout: at most `limit`
    /// of them after `after`, given as (rollout, host).
    pub async fn hosts(
        &self,
        after: Option<&HostKey>,
        limit: u32,
        channels: Option<&BTreeSet<ChannelName>>,
    ) -> Result<Vec<HostView>, ReadError> {
        let channels: Option<Vec<&str>> =
            channels.map(|names| names.iter().map(ChannelName::as_str).collect());
        let (rollout, host) = after.map_or(("", ""), |(id, host)| (id.as_str(), host.as_str()));
        let rows = sql!("hosts_page")
            .query(
                &self.client().await?,
                &[
                    &encode(host),
                    &encode(rollout),
                    &i64::from(limit),
                    &channels,
                ],
            )
            .await?;
        rows.iter().map(host_view).collect()
    }

    /// Records of one rollout by host, at most `limit` of them after `after`.
    pub async fn rollout_hosts(
        &self,
        rollout_id: &RolloutId,
        after: Option<&Hostname>,
        limit: u32,
    ) -> Result<Vec<HostView>, ReadError> {
        let after = after.map_or("", Hostname::as_str);
        let rows = sql!("rollout_hosts_page")
            .query(
                &self.client().await?,
                &[
                    &encode(rollout_id.as_str()),
                    &encode(after),
                    &i64::from(limit),
                ],
            )
            .await?;
        rows.iter().map(host_view).collect()
    }

    /// Everything about one host as of one instant; empty for an unknown host.
    pub async fn host_detail(&self, hostname: &Hostname) -> Result<HostDetail, ReadError> {
        let mut client = self.client().await?;
        let transaction = read_transaction(&mut client).await?;
        let name = encode(hostname.as_str());
        let seen = sql!("host_seen").query_opt(&transaction, &[&name]).await?;
        let rows = sql!("host_detail").query(&transaction, &[&name]).await?;
        let records: Vec<HostView> = rows.iter().map(host_view).collect::<Result<_, _>>()?;
        let ids: Vec<&RolloutId> = records.iter().map(|host| &host.record.rollout_id).collect();
        let rollouts = rollouts::by_id(&transaction, &ids).await?;
        let rows = sql!("blocks_of_host").query(&transaction, &[&name]).await?;
        let blocks = rows.iter().map(block_row).collect::<Result<_, _>>()?;
        let blocks = blocks_of(hostname, &records, blocks);
        commit(transaction).await?;
        Ok(HostDetail {
            seen: seen.as_ref().map(seen_host).transpose()?,
            records,
            rollouts,
            blocks,
        })
    }

    /// Holds by host, gate and reason, latest first, at most `limit`. Hosts that left Pending or have a
    /// dispatch are not held any more.
    pub async fn deferrals(
        &self,
        limit: usize,
        is_shown: impl Fn(&ChannelName) -> bool,
    ) -> Result<Vec<Deferral>, ReadError> {
        let mut client = self.client().await?;
        let transaction = read_transaction(&mut client).await?;
        let mut deferrals = Vec::new();
        let mut waves = BTreeMap::new();
        for row in sql!("blocks_all").query(&transaction, &[]).await? {
            let block = block_row(&row)?;
            if !is_shown(&block.rollout_id.channel()) {
                continue;
            }
            let wave = (block.rollout_id.clone(), block.wave);
            if !waves.contains_key(&wave) {
                let held = held_hosts(&transaction, &block).await?;
                waves.insert(wave.clone(), held);
            }
            let room = limit - deferrals.len();
            let held = expand(&block, row.get(6), &waves[&wave]);
            deferrals.extend(held.take(room));
            if deferrals.len() == limit {
                break;
            }
        }
        commit(transaction).await?;
        Ok(deferrals)
    }
}

async fn held_hosts(
    client: &impl GenericClient,
    block: &BlockRow,
) -> Result<BTreeSet<Hostname>, ReadError> {
    let rows = sql!("held_hosts")
        .query(
            client,
            &[&encode(block.rollout_id.as_str()), &i64::from(block.wave)],
        )
        .await?;
    let hostname = |row| Key::new("gate_blocks", row, 1).hostname(row, 0);
    rows.iter().map(hostname).collect()
}

fn expand<'a>(
    block: &'a BlockRow,
    observed_at: DateTime<Utc>,
    held: &'a BTreeSet<Hostname>,
) -> impl Iterator<Item = Deferral> + 'a {
    block.holds.iter().flat_map(move |hold| {
        let named = hold
            .hosts
            .iter()
            .flatten()
            .filter(|host| held.contains(*host));
        let all = held.iter().filter(|_| hold.hosts.is_none());
        named.chain(all).map(move |hostname| Deferral {
            hostname: hostname.clone(),
            rollout_id: block.rollout_id.clone(),
            wave: block.wave,
            gate: block.gate,
            reason: hold.reason.clone(),
            observed_at,
            position: block.cause.position,
            cause: hold.cause,
        })
    })
}

/// The blocks of this host, each with the holds that name it.
fn blocks_of(hostname: &Hostname, records: &[HostView], blocks: Vec<BlockRow>) -> Vec<BlockRow> {
    let is_held = |block: &BlockRow| {
        records.iter().any(|host| {
            host.record.rollout_id == block.rollout_id
                && host.record.state == nixfleet_proto::HostState::Pending
                && host.queued_at.is_none()
        })
    };
    let mut of_host: Vec<BlockRow> = blocks.into_iter().filter(is_held).collect();
    for block in &mut of_host {
        block.holds.retain(|hold| match &hold.hosts {
            None => true,
            Some(hosts) => hosts.contains(hostname),
        });
    }
    of_host.retain(|block| !block.holds.is_empty());
    of_host
}

fn seen_host(row: &Row) -> Result<SeenHost, ReadError> {
    Ok(SeenHost {
        hostname: Key::new("hosts", row, 1).hostname(row, 0)?,
        channel: ChannelName::from(&*decode(row.get(1))),
        last_seen_at: row.get(2),
        current_closure: text_opt(row, 3).map(ClosureHash::from),
    })
}

fn host_view(row: &Row) -> Result<HostView, ReadError> {
    let key = Key::new("host_views", row, 2);
    let dispatch: Option<DispatchRecord> = key.json_opt(row.get(5))?;
    let count = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    Ok(HostView {
        record: key.json(row.get(2))?,
        wave: key.small(row.get(3))?,
        staged: row.get(4),
        queued_at: dispatch.map(|dispatch| dispatch.enqueued_at),
        recovery_candidate: text_opt(row, 6).map(ClosureHash::from),
        position: key.position(row, 7)?,
        traceparent: text_opt(row, 9),
        last_seen_at: row.get(10),
        seen_closure: text_opt(row, 11).map(ClosureHash::from),
        quarantined: row.get(12),
        compliance_failures: count(13),
        health_failures: count(14),
    })
}
