//! What must hold at the end of a run.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nixfleet_audit::Facts;
use nixfleet_audit::check::{self, Check};
use nixfleet_bus::Bus;

use crate::accounts::Accounts;
use crate::incident::{Incident, LEADER, Takeover, takeovers};
use crate::log_sizes::LogSizes;
use crate::logs::Logs;
use crate::sampler::Sample;
use crate::schedule::LEASE_TTL;
use crate::strike::How;
use crate::verified::Verified;
use crate::waits::{Waits, waits};
use crate::world::World;
use crate::{archive, replay, verified};

/// A killed owner of a partition is replaced when its lease has ended, and then at once.
const KILLED_MAX: Duration = LEASE_TTL.saturating_add(Duration::from_secs(2));
/// A stopped owner gives its lease back: half of the takeovers are through by then.
const STOPPED_MEDIAN_MAX: Duration = Duration::from_secs(1);
/// No takeover from a stopped owner may take longer, however busy the machine is.
const STOPPED_MAX: Duration = Duration::from_secs(3);
/// A standby that has just started loads the whole fleet with its history before it leads, and its
/// barriers need the owners of all partitions.
const LEADER_EXTRA: Duration = Duration::from_secs(20);

/// Everything that was found.
pub struct Verdict {
    /// What the hosts, the tables and the archive say.
    pub facts: Facts,
    /// What became of the events.
    pub accounts: Accounts,
    /// The strikes.
    pub incidents: Vec<Incident>,
    /// The longest waits of each.
    pub waits: Vec<Waits>,
    /// Work that changed hands.
    pub takeovers: Vec<Takeover>,
    /// How much was written to the logs and how full they got.
    pub log_sizes: LogSizes,
    /// What the replay of the archive found.
    pub verified: Verified,
    /// What must hold.
    pub checks: Vec<Check>,
}

/// What a run left behind.
pub struct Evidence {
    /// What the hosts, the tables and the archive say.
    pub facts: Facts,
    /// What was not finished in time.
    pub open: Vec<String>,
    /// The strikes.
    pub incidents: Vec<Incident>,
    /// What must not have happened on the way.
    pub faults: Vec<String>,
    /// What was seen on the way.
    pub samples: Vec<Sample>,
    /// Everything that was ever in the logs.
    pub logs: Vec<Logs>,
    /// Size of a log in bytes, where it is not the default.
    pub log_limit: Option<u64>,
}

impl Verdict {
    /// True when every check holds.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.fault.is_none())
    }
}

/// Holds everything against everything.
///
/// # Errors
/// When a server does not answer.
pub async fn judge(world: &World, bus: &Bus, evidence: Evidence) -> Result<Verdict> {
    let logs = evidence.logs;
    let replayed = replay::fold(bus, &logs)
        .await
        .context("folding the logs again")?;
    let url = &world.database.url;
    let published: Vec<String> = logs
        .iter()
        .zip(&replayed)
        .flat_map(|(log, replayed)| replay::against_output(log, replayed))
        .collect();
    let tables = replay::against_tables(url, &replayed).await?;
    let archived = archive::against_logs(url, &logs).await?;
    let accounts = Accounts::of(&evidence.facts.swarm, &logs);
    let verified = verified::verify(url).await?;
    let takeovers = takeovers(&evidence.incidents, &logs);
    let log_sizes = LogSizes::of(&logs, &evidence.samples);
    let facts = evidence.facts;
    let mut checks = vec![
        Check::new("no acknowledged event is lost", accounts.lost.clone()),
        Check::new("no event is applied twice", accounts.twice.clone()),
        Check::new("every rollout is settled", evidence.open),
        Check::new("the published outcomes are those of a replay", published),
        Check::new("the tables are those of a replay", tables),
        Check::new("the archive holds the logs", archived),
        check::tables_equal_hosts(&facts),
        check::archived(&facts),
        check::nothing_waits(&facts),
        check::rejections(&facts),
        check::readable(&facts),
        Check::new("no host event was refused for good", refused(&facts)),
        Check::new(
            "a killed owner is replaced in time",
            late(&takeovers, killed_max),
        ),
        Check::new(
            "a stopped owner is replaced at once",
            [late(&takeovers, stopped_max), sluggish(&takeovers)].concat(),
        ),
        Check::new("everything came back after each fault", evidence.faults),
        Check::new("no service ended by itself", world.deaths.clone()),
        Check::new(
            "`nixfleet db verify` finds no difference",
            verified.faults.clone(),
        ),
    ];
    if let Some(limit) = evidence.log_limit {
        checks.extend(log_sizes.checks(limit));
    }
    Ok(Verdict {
        waits: waits(&evidence.incidents, &logs, &evidence.samples),
        incidents: evidence.incidents,
        facts,
        accounts,
        takeovers,
        log_sizes,
        verified,
        checks,
    })
}

/// What hosts were told that their events are wrong, and dispatches they refused although the rollout
/// still counts: the manifests of one that was superseded meanwhile are replaced.
fn refused(facts: &Facts) -> Vec<String> {
    let current = facts.current_rollouts();
    let mut faults = Vec::new();
    for (hostname, host) in &facts.swarm.hosts {
        for letter in &host.dead_letters {
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

fn killed_max(how: How) -> Option<Duration> {
    match how {
        How::Killed | How::Paused => Some(KILLED_MAX),
        How::Stopped => None,
    }
}

fn stopped_max(how: How) -> Option<Duration> {
    match how {
        How::Stopped => Some(STOPPED_MAX),
        How::Killed | How::Paused => None,
    }
}

/// The median of the takeovers from stopped owners of partitions, when it is too long.
fn sluggish(takeovers: &[Takeover]) -> Vec<String> {
    let mut times: Vec<Duration> = takeovers
        .iter()
        .filter(|takeover| takeover.faults == 1 && takeover.how == How::Stopped)
        .filter(|takeover| takeover.what != LEADER)
        .filter_map(|takeover| takeover.took)
        .collect();
    times.sort_unstable();
    let median = times.get(times.len().saturating_sub(1) / 2);
    median
        .filter(|median| **median >= STOPPED_MEDIAN_MAX)
        .map(|median| {
            format!(
                "the median is {:.2} s, promised is {} s",
                median.as_secs_f64(),
                STOPPED_MEDIAN_MAX.as_secs()
            )
        })
        .into_iter()
        .collect()
}

/// Takeovers that took longer than promised. Nothing is promised while a server is away too.
fn late(takeovers: &[Takeover], max: impl Fn(How) -> Option<Duration>) -> Vec<String> {
    let judged = takeovers.iter().filter(|takeover| takeover.faults == 1);
    judged
        .filter_map(|takeover| {
            let mut max = max(takeover.how)?;
            if takeover.what == LEADER {
                max += LEADER_EXTRA;
            }
            let Takeover { incident, what, .. } = takeover;
            match takeover.took {
                Some(took) if took < max => None,
                Some(took) => Some(format!(
                    "{incident}: {what} after {:.2} s, promised is {} s",
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
        let takeover = |faults, how, millis: Option<u64>| Takeover {
            incident: "kill node".to_owned(),
            faults,
            what: "partition 01".to_owned(),
            how,
            took: millis.map(Duration::from_millis),
        };
        let leader = Takeover {
            what: LEADER.to_owned(),
            ..takeover(1, How::Stopped, Some(2_500))
        };
        let found = [
            takeover(1, How::Killed, Some(11_000)),
            takeover(1, How::Killed, Some(12_500)),
            takeover(2, How::Killed, Some(30_000)),
            takeover(1, How::Paused, None),
            takeover(1, How::Stopped, Some(1_500)),
        ];
        assert_eq!(
            late(&found, killed_max),
            [
                "kill node: partition 01 after 12.50 s, promised is 12 s",
                "kill node: partition 01 was never taken over"
            ]
        );
        assert!(late(&found, stopped_max).is_empty());
        assert_eq!(sluggish(&found).len(), 1, "half are through after 1.5 s");
        let quick = takeover(1, How::Stopped, Some(400));
        assert!(sluggish(&[quick.clone(), quick, found[4].clone()]).is_empty());
        assert!(late(&[leader], stopped_max).is_empty());
    }
}
