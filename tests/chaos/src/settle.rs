//! The end: everything is up, and everything that was begun is finished.

use std::time::{Duration, Instant};

use anyhow::Result;
use nixfleet_audit::Facts;

use crate::world::World;
use nixfleet_harness::say::Say;

/// Longest time for everything to finish.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many things that are not finished are named.
const SHOWN: usize = 5;

/// Waits until every rollout is settled and nothing is under way; what is left when the patience ends
/// is in the second part.
///
/// # Errors
/// When the hosts or the database do not answer at the end.
pub async fn settle(world: &mut World, say: Say) -> Result<(Facts, Vec<String>)> {
    say.now("waiting until everything is settled");
    let start = Instant::now();
    loop {
        world.pass(LOOK_EVERY).await?;
        let swarm = world.swarm_state()?;
        let gathered = nixfleet_audit::gather(&world.database.url, swarm).await;
        let is_over = start.elapsed() > PATIENCE;
        match gathered {
            Ok(facts) => {
                let open = open(&facts);
                if open.is_empty() || is_over {
                    say.now(&format!(
                        "settled after {:.1} s",
                        start.elapsed().as_secs_f64()
                    ));
                    return Ok((facts, open));
                }
            }
            Err(error) if is_over => return Err(error),
            Err(_) => {}
        }
    }
}

/// What is not finished.
fn open(facts: &Facts) -> Vec<String> {
    let mut open = Vec::new();
    let current = facts.current_rollouts();
    for (rollout_id, row) in &facts.rollouts {
        if current.contains(rollout_id.as_str()) && row.state != "Terminal" {
            open.push(format!("{rollout_id} is {}", row.state));
        }
    }
    for ((rollout_id, hostname), row) in &facts.hosts {
        if current.contains(rollout_id.as_str()) && row.state != "Converged" {
            open.push(format!("{hostname} in {rollout_id} is {}", row.state));
        }
    }
    if facts.queued > 0 {
        open.push(format!("{} dispatches are queued", facts.queued));
    }
    if open.is_empty() && !facts.is_quiet() {
        open.push("hosts, tables and archive do not agree yet".to_owned());
    }
    let more = open.len().saturating_sub(SHOWN);
    open.truncate(SHOWN);
    if more > 0 {
        open.push(format!("and {more} more"));
    }
    open
}
