//! Checks at the end of a run.

use anyhow::{Context as _, Result};
use nixfleet_audit::{Check, database};
use nixfleet_harness::Service;

use crate::number_format::format_bytes;
use crate::output_follower::OutcomeCounts;
use crate::sampler::Samples;
use crate::testbed::Testbed;

/// Limit of the bytes on the disk of the bus.
pub const DISK_LIMIT: u64 = 2 << 30;

/// The disk of the bus stays below its limit.
pub fn disk(samples: &Samples) -> Check {
    let most = samples.samples.iter().map(|sample| sample.disk_bytes).max();
    let most = most.unwrap_or(0);
    let fault = (most >= DISK_LIMIT).then(|| format!("it took {}", format_bytes(most)));
    Check::new(
        "the disk of the bus stays below 2 GiB",
        fault.into_iter().collect(),
    )
}

/// Every service stays ready after its first readiness, except while the database is missing, and is ready
/// at the end.
pub fn ready(samples: &Samples) -> Check {
    let mut faults: Vec<String> = samples.not_ready.iter().cloned().collect();
    let ready = samples.samples.last().map_or(0, |sample| sample.ready);
    if ready < Service::ALL.len() {
        faults.push(format!(
            "{ready} of {} are ready at the end",
            Service::ALL.len()
        ));
    }
    Check::new("all services are ready all the time", faults)
}

/// The requested number of events was accepted.
pub fn accepted(outcome_counts: &OutcomeCounts, wanted: u64) -> Check {
    let fault = (outcome_counts.accepted < wanted)
        .then(|| format!("{} of {wanted} were accepted", outcome_counts.accepted));
    Check::new(
        "the requested number of events was accepted",
        fault.into_iter().collect(),
    )
}

/// The tables contain every accepted event: the sequences of a host run from 1 to its last one without a
/// gap.
///
/// # Errors
/// When the database is unreachable.
pub async fn applied(testbed: &Testbed, outcome_counts: &OutcomeCounts) -> Result<Check> {
    let sql = "SELECT coalesce(sum(last_event_seq), 0)::bigint FROM host_rollout_records";
    let found = number(testbed, sql).await?;
    let fault = (found != outcome_counts.accepted).then(|| {
        let accepted = outcome_counts.accepted;
        format!("{accepted} were accepted, the tables contain {found}")
    });
    Ok(Check::new(
        "every accepted event is in the tables",
        fault.into_iter().collect(),
    ))
}

/// The archive contains every entry with an outcome.
///
/// # Errors
/// When the database is unreachable.
pub async fn archived(testbed: &Testbed, outcome_counts: &OutcomeCounts) -> Result<Check> {
    let [input, _] = testbed.logs();
    let sql = format!("SELECT count(*) FROM event_log WHERE stream = '{input}'");
    let found = number(testbed, &sql).await?;
    let fault = (found != outcome_counts.outcomes).then(|| {
        let outcomes = outcome_counts.outcomes;
        format!("{outcomes} entries have an outcome, the archive contains {found}")
    });
    Ok(Check::new(
        "every entry is in the archive",
        fault.into_iter().collect(),
    ))
}

async fn number(testbed: &Testbed, sql: &str) -> Result<u64> {
    let rows = database::query(&testbed.database.url, sql, &[]).await?;
    let row = rows.first().context("no row")?;
    Ok(u64::try_from(row.get::<_, i64>(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Sample;

    #[test]
    fn the_largest_sample_counts() {
        let sample = |disk_bytes| Sample {
            disk_bytes,
            ..Sample::default()
        };
        let mut samples = Samples {
            samples: vec![sample(1), sample(DISK_LIMIT - 1)],
            ..Samples::default()
        };
        assert_eq!(disk(&samples).fault, None);
        samples.samples.insert(1, sample(DISK_LIMIT));
        let fault = disk(&samples).fault.unwrap();
        assert_eq!(fault, "it took 2.00 GiB");
    }
}
