//! Drops the database while the services run, and waits until they have rebuilt it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nixfleet_audit::{Check, PartitionSummary};
use nixfleet_harness::progress_printer::Printer;
use nixfleet_harness::synthetic_release::{closure, hostname};
use nixfleet_harness::wait_for;
use nixfleet_proto::{RolloutId, RolloutState};
use serde_json::json;

use crate::rollout_driver::{Driver, ExpectedEnd};
use crate::sampler::Sampler;
use crate::testbed::Testbed;

/// The host whose closure is quarantined and that the operator clears.
const WAIVED: usize = 0;
/// Longest time until the rows are back.
const TIMEOUT: Duration = Duration::from_secs(1_800);
/// Longest time from the rebuilt rows until all services are ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between two reads of all rows.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Result of the rebuild.
pub struct Rebuilt {
    /// Seconds until the rows were back.
    pub seconds: f64,
    /// Checks that the state equals the one before and that all services are ready again.
    pub checks: [Check; 2],
}

/// Creates a quarantine, waived hosts and a halted rollout, drops the database, and waits until the
/// services have rebuilt the state.
///
/// # Errors
/// When the initial state cannot be created.
pub async fn run(
    testbed: &Testbed,
    driver: &mut Driver<'_>,
    (sampler, printer): (&Sampler, Printer),
) -> Result<Rebuilt> {
    let cleared = break_and_clear(testbed, driver).await?;
    driver.release(ExpectedEnd::Halts(WAIVED)).await?;
    let halted = driver.hosts().rollout_id().clone();
    driver.wait_until_applied().await?;
    let before = PartitionSummary::read(&testbed.store, testbed.partition).await?;
    check(&before, (&cleared, &halted))?;

    printer.timed_line("dropping the database");
    let phase_start = driver.phase_start();
    let start = Instant::now();
    sampler.allow_unready();
    testbed.drop_database().await?;
    let faults = loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let faults = match PartitionSummary::read(&testbed.store, testbed.partition).await {
            Ok(after) => before.differences(&after),
            Err(error) => vec![format!("{error:#}")],
        };
        if faults.is_empty() || start.elapsed() > TIMEOUT {
            break faults;
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    driver.note("rows rebuilt", phase_start);
    let ready = wait_for("all services are ready again", READY_TIMEOUT, async || {
        Ok(sampler.is_ready_again().then_some(()))
    });
    let not_ready = ready.await.err().map(|error| format!("{error:#}"));
    Ok(Rebuilt {
        seconds,
        checks: [
            Check::new("a dropped database is rebuilt as before", faults),
            Check::new(
                "all services are ready after that",
                not_ready.into_iter().collect(),
            ),
        ],
    })
}

/// Publishes a release that rolls back on one host; an operator clears the host, and all others converge.
async fn break_and_clear(testbed: &Testbed, driver: &mut Driver<'_>) -> Result<RolloutId> {
    driver.release(ExpectedEnd::Halts(WAIVED)).await?;
    let rollout_id = driver.hosts().rollout_id().clone();
    // The gateway refuses the command until the rows contain the halt.
    driver.wait_until_applied().await?;
    let clearance = json!({ "reason": "excused", "waivedHosts": [hostname(WAIVED)] });
    let path = format!("/v1/rollouts/{rollout_id}/clearance");
    let operator = testbed.operator()?;
    let phase_start = driver.phase_start();
    operator.post(&path, &clearance).await?;
    driver.follow(ExpectedEnd::Converges).await?;
    driver.note("the others converged after a clearance", phase_start);
    Ok(rollout_id)
}

/// Checks that the run has produced the states to be rebuilt.
fn check(standing: &PartitionSummary, (cleared, halted): (&RolloutId, &RolloutId)) -> Result<()> {
    let of = |rollout_id: &RolloutId| {
        let rollout = standing.rollouts.get(rollout_id);
        rollout.with_context(|| format!("{rollout_id} has no row"))
    };
    ensure!(
        of(cleared)?.waived_hosts.contains(&hostname(WAIVED)),
        "no host is waived in {cleared}"
    );
    ensure!(
        of(halted)?.state == RolloutState::Reverted,
        "{halted} is not halted"
    );
    let release = u32::try_from(standing.rollouts.len())?;
    let quarantined = closure(release, WAIVED);
    ensure!(
        standing.is_quarantined(halted.channel().as_str(), &quarantined),
        "{quarantined} is not in quarantine"
    );
    Ok(())
}
