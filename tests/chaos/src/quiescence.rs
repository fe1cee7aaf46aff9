//! Waits at the end of a run until all work is finished.

use std::time::{Duration, Instant};

use anyhow::Result;
use nixfleet_audit::ObservedState;

use crate::testbed::Testbed;
use nixfleet_harness::progress_printer::Printer;

/// Longest time for all work to finish.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Interval between two observations.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Unfinished items that are named.
const SHOWN: usize = 5;

/// Waits until every rollout is complete and nothing is in flight; returns the unfinished items at the
/// timeout.
///
/// # Errors
/// When the hosts or the database do not answer at the end.
pub async fn wait_until_quiescent(
    testbed: &mut Testbed,
    printer: Printer,
) -> Result<(ObservedState, Vec<String>)> {
    printer.timed_line("waiting until every rollout is complete");
    let start = Instant::now();
    loop {
        testbed.supervise_for(POLL_INTERVAL).await?;
        let swarm = testbed.swarm_state()?;
        let gathered = nixfleet_audit::observe(&testbed.database.url, swarm).await;
        let is_over = start.elapsed() > TIMEOUT;
        match gathered {
            Ok(observed) => {
                let open = open(&observed);
                if open.is_empty() || is_over {
                    printer.timed_line(&format!(
                        "complete after {:.1} s",
                        start.elapsed().as_secs_f64()
                    ));
                    return Ok((observed, open));
                }
            }
            Err(error) if is_over => return Err(error),
            Err(_) => {}
        }
    }
}

/// Unfinished rollouts, hosts and dispatches.
fn open(observed: &ObservedState) -> Vec<String> {
    let mut open = Vec::new();
    let current = observed.current_rollouts();
    for (rollout_id, row) in &observed.rollouts {
        if current.contains(rollout_id.as_str()) && row.state != "Terminal" {
            open.push(format!("{rollout_id} is {}", row.state));
        }
    }
    for ((rollout_id, hostname), row) in &observed.hosts {
        if current.contains(rollout_id.as_str()) && row.state != "Converged" {
            open.push(format!("{hostname} in {rollout_id} is {}", row.state));
        }
    }
    if observed.queued > 0 {
        open.push(format!("{} dispatches are queued", observed.queued));
    }
    if open.is_empty() && !observed.is_quiescent() {
        open.push("hosts, tables and archive do not agree yet".to_owned());
    }
    let more = open.len().saturating_sub(SHOWN);
    open.truncate(SHOWN);
    if more > 0 {
        open.push(format!("and {more} more"));
    }
    open
}
