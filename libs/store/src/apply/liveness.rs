//! Writing the last-seen times of hosts.

use std::collections::BTreeMap;

use nixfleet_proto::wire::LivenessReport;

use crate::error::DbError;
use crate::parameter_encoding::column_value::column_time;
use crate::parameter_encoding::nul_escape::encode;
use crate::prepared_statement::sql;
use crate::store::Store;

impl Store {
    /// Stores last-seen times; of several for one host only the latest, and never an earlier one than
    /// before. Returns the number of changed rows.
    pub async fn upsert_liveness(&self, reports: &[LivenessReport]) -> Result<u64, DbError> {
        let mut latest: BTreeMap<&str, &LivenessReport> = BTreeMap::new();
        for report in reports {
            let kept = latest.entry(report.hostname.as_str()).or_insert(report);
            if kept.last_seen_at < report.last_seen_at {
                *kept = report;
            }
        }
        if latest.is_empty() {
            return Ok(0);
        }
        let (mut hostnames, mut channels) = (Vec::new(), Vec::new());
        let (mut times, mut closures) = (Vec::new(), Vec::new());
        for report in latest.values() {
            hostnames.push(encode(report.hostname.as_str()));
            channels.push(encode(report.channel.as_str()));
            times.push(column_time(report.last_seen_at));
            closures.push(report.current_closure.as_ref().map(|c| encode(c.as_str())));
        }
        sql!("liveness_upsert")
            .execute(
                &self.client().await?,
                &[&hostnames, &channels, &times, &closures],
            )
            .await
    }
}
