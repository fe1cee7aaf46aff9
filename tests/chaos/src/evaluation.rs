//! Checks at the end of a run.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nixfleet_audit::ObservedState;
use nixfleet_audit::check::{self, Check};
use nixfleet_bus::Bus;
use nixfleet_harness::FloodAnswers;

use crate::db_verify::VerifyResult;
use crate::event_accounting::EventAccounting;
use crate::fault_injection::Interruption;
use crate::fault_schedule::LEASE_TTL;
use crate::latencies::{Latencies, latencies};
use crate::log_sizes::LogSizes;
use crate::partition_logs::PartitionLogs;
use crate::sampler::Sample;
use crate::takeovers::{Incident, LEADER, Takeover, takeovers};
use crate::testbed::Testbed;
use crate::{archive_comparison, db_verify, log_replay};

/// Longest takeover from a killed owner of a partition: the rest of its lease, and a margin.
const KILLED_MAX: Duration = LEASE_TTL.saturating_add(Duration::from_secs(2));
/// Longest median takeover from a stopped owner, which returns its lease.
const STOPPED_MEDIAN_MAX: Duration = Duration::from_secs(1);
/// Longest takeover from a stopped owner, whatever the load of the machine.
const STOPPED_MAX: Duration = Duration::from_secs(3);
/// Additional time for a leader: a standby that has just started loads the fleet with its history, and its
/// barriers need the owners of all partitions.
const LEADER_EXTRA: Duration = Duration::from_secs(20);

/// Result of a run.
pub struct Evaluation {
    /// Final state of hosts, tables and archive.
    pub observed: ObservedState,
    /// Result of every acknowledged event.
    pub accounting: EventAccounting,
    /// Injected groups of faults.
    pub incidents: Vec<Incident>,
    /// Longest latencies during each group.
    pub latencies: Vec<Latencies>,
    /// Takeovers of partitions and of the leadership.
    pub takeovers: Vec<Takeover>,
    /// Written, largest and trimmed sizes of the logs.
    pub log_sizes: LogSizes,
    /// Result of `nixfleet db verify`.
    pub verify_result: VerifyResult,
    /// What a flooding host was answered.
    pub flood: Option<FloodAnswers>,
    /// Checks of the run.
    pub checks: Vec<Check>,
}

/// Data that a run collected.
pub struct RunData {
    /// Final state of hosts, tables and archive.
    pub observed: ObservedState,
    /// Work that was not finished in time.
    pub open: Vec<String>,
    /// Injected groups of faults.
    pub incidents: Vec<Incident>,
    /// Violations during the run.
    pub faults: Vec<String>,
    /// Samples taken during the run.
    pub samples: Vec<Sample>,
    /// Every message of the logs, trimmed ones included.
    pub logs: Vec<PartitionLogs>,
    /// Limit of a log in bytes, where it is not the default.
    pub log_limit: Option<u64>,
    /// What a flooding host was answered, and violations.
    pub flood: Option<(FloodAnswers, Vec<String>)>,
}

impl Evaluation {
    /// True when every check holds.
    pub fn holds(&self) -> bool {
        check::all_hold(&self.checks)
    }
}

/// Compares hosts, logs, replay, tables and archive.
///
/// # Errors
/// When a server does not answer.
pub async fn evaluate(testbed: &Testbed, bus: &Bus, run_data: RunData) -> Result<Evaluation> {
    let logs = run_data.logs;
    let replayed = log_replay::fold(bus, &logs)
        .await
        .context("folding the logs again")?;
    let url = &testbed.database.url;
    let published: Vec<String> = logs
        .iter()
        .zip(&replayed)
        .flat_map(|(log, replayed)| log_replay::against_output(log, replayed))
        .collect();
    let tables = log_replay::against_tables(url, &replayed).await?;
    let archived = archive_comparison::against_logs(url, &logs).await?;
    let accounting = EventAccounting::of(&run_data.observed.swarm, &logs);
    let verify_result = db_verify::verify(url, &testbed.operator_tools()).await?;
    let takeovers = takeovers(&run_data.incidents, &logs);
    let log_sizes = LogSizes::of(&logs, &run_data.samples);
    let observed = run_data.observed;
    let mut checks = vec![
        Check::new("no acknowledged event is lost", accounting.lost.clone()),
        Check::new(
            "no event is applied twice",
            accounting.applied_twice.clone(),
        ),
        Check::new("every rollout is settled", run_data.open),
        Check::new("the published outcomes are those of a replay", published),
        Check::new("the tables are those of a replay", tables),
        Check::new("the archive contains the logs", archived),
        check::tables_equal_hosts(&observed),
        check::archived(&observed),
        check::nothing_waits(&observed),
        check::rejections(&observed),
        check::readable(&observed),
        Check::new(
            "no host event was refused for good",
            permanent_refusals(&observed),
        ),
        Check::new("every process recovered after each fault", run_data.faults),
        Check::new(
            "no service ended by itself",
            testbed.unexpected_exits.clone(),
        ),
        Check::new(
            "`nixfleet db verify` finds no difference",
            verify_result.faults.clone(),
        ),
    ];
    checks.extend(takeover_checks(&takeovers));
    if let Some(limit) = run_data.log_limit {
        checks.extend(log_sizes.checks(limit));
    }
    let mut flood = None;
    if let Some((answers, faults)) = run_data.flood {
        checks.push(Check::new("a flooding host is limited", faults));
        flood = Some(answers);
    }
    Ok(Evaluation {
        flood,
        latencies: latencies(&run_data.incidents, &logs, &run_data.samples),
        incidents: run_data.incidents,
        observed,
        accounting,
        takeovers,
        log_sizes,
        verify_result,
        checks,
    })
}

fn takeover_checks(takeovers: &[Takeover]) -> [Check; 2] {
    let stopped = [
        late_takeovers(takeovers, stopped_max),
        slow_median(takeovers),
    ]
    .concat();
    [
        Check::new(
            "a killed owner is replaced in time",
            late_takeovers(takeovers, killed_max),
        ),
        Check::new("a stopped owner is replaced at once", stopped),
    ]
}

/// Events that hosts gave up because they were refused, and refused dispatches of current rollouts. The
/// manifests of a superseded rollout are replaced, so a refusal of one of those is expected.
fn permanent_refusals(observed: &ObservedState) -> Vec<String> {
    let current = observed.current_rollouts();
    let mut faults = Vec::new();
    for (hostname, host) in &observed.swarm.hosts {
        for letter in &host.refused_events {
            faults.push(format!(
                "{hostname}: {} {} of {} was answered {} {}",
                letter.kind, letter.seq, letter.rollout_id, letter.status, letter.code
            ));
        }
        let mut refusals = host.refused_dispatches.iter();
        faults.extend(
            refusals
                .by_ref()
                .filter(|refusal| current.contains(refusal.rollout_id.as_str()))
                .map(|refusal| {
                    format!(
                        "{hostname}: refused {}: {}",
                        refusal.rollout_id, refusal.message
                    )
                }),
        );
    }
    faults
}

fn killed_max(interruption: Interruption) -> Option<Duration> {
    match interruption {
        Interruption::Killed | Interruption::Paused => Some(KILLED_MAX),
        Interruption::Stopped => None,
    }
}

fn stopped_max(interruption: Interruption) -> Option<Duration> {
    match interruption {
        Interruption::Stopped => Some(STOPPED_MAX),
        Interruption::Killed | Interruption::Paused => None,
    }
}

/// The median of the takeovers from stopped owners of partitions, when it is too long.
fn slow_median(takeovers: &[Takeover]) -> Vec<String> {
    let mut times: Vec<Duration> = takeovers
        .iter()
        .filter(|takeover| takeover.faults == 1 && takeover.interruption == Interruption::Stopped)
        .filter(|takeover| takeover.what != LEADER)
        .filter_map(|takeover| takeover.took)
        .collect();
    times.sort_unstable();
    let median = times.get(times.len().saturating_sub(1) / 2);
    median
        .filter(|median| **median >= STOPPED_MEDIAN_MAX)
        .map(|median| {
            format!(
                "the median is {:.2} s, the limit is {} s",
                median.as_secs_f64(),
                STOPPED_MEDIAN_MAX.as_secs()
            )
        })
        .into_iter()
        .collect()
}

/// Takeovers that exceeded their bound. Takeovers during a second fault have none.
fn late_takeovers(
    takeovers: &[Takeover],
    max: impl Fn(Interruption) -> Option<Duration>,
) -> Vec<String> {
    let judged = takeovers.iter().filter(|takeover| takeover.faults == 1);
    judged
        .filter_map(|takeover| {
            let mut max = max(takeover.interruption)?;
            if takeover.what == LEADER {
                max += LEADER_EXTRA;
            }
            let Takeover { incident, what, .. } = takeover;
            match takeover.took {
                Some(took) if took < max => None,
                Some(took) => Some(format!(
                    "{incident}: {what} after {:.2} s, the limit is {} s",
                    took.as_secs_f64(),
                    max.as_secs()
                )),
                None => Some(format!("{incident}: {what} was never taken over")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_takeovers_of_single_faults_are_judged() {
        let takeover = |faults, interruption, millis: Option<u64>| Takeover {
            incident: "kill node".to_owned(),
            faults,
            what: "partition 01".to_owned(),
            interruption,
            took: millis.map(Duration::from_millis),
        };
        let leader = Takeover {
            what: LEADER.to_owned(),
            ..takeover(1, Interruption::Stopped, Some(2_500))
        };
        let found = [
            takeover(1, Interruption::Killed, Some(11_000)),
            takeover(1, Interruption::Killed, Some(12_500)),
            takeover(2, Interruption::Killed, Some(30_000)),
            takeover(1, Interruption::Paused, None),
            takeover(1, Interruption::Stopped, Some(1_500)),
        ];
        assert_eq!(
            late_takeovers(&found, killed_max),
            [
                "kill node: partition 01 after 12.50 s, the limit is 12 s",
                "kill node: partition 01 was never taken over"
            ]
        );
        assert!(late_takeovers(&found, stopped_max).is_empty());
        assert_eq!(slow_median(&found).len(), 1, "half are through after 1.5 s");
        let quick = takeover(1, Interruption::Stopped, Some(400));
        assert!(slow_median(&[quick.clone(), quick, found[4].clone()]).is_empty());
        assert!(late_takeovers(&[leader], stopped_max).is_empty());
    }
}
