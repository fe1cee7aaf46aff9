//! A host of the fleet that floods the gateways during the whole fault injection.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nixfleet_harness::{FloodAnswers, FloodingHost, Stack, monitoring};
use nixfleet_proto::{Hostname, RolloutId};
use nixfleet_swarm::swarm_state::SwarmState;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Connections to each gateway.
const CONNECTIONS: usize = 4;
/// Interval between two looks for the newest rollout of the host.
const ROLLOUT_INTERVAL: Duration = Duration::from_secs(1);

/// The flood, and the task that follows the rollouts of its host.
pub struct Flood {
    host: FloodingHost,
    follower: JoinHandle<()>,
}

impl Flood {
    /// Starts the flood of a simulated host, whose own agent goes on.
    ///
    /// # Errors
    /// When its certificate cannot be issued.
    pub fn start(stack: &Stack, swarm_port: u16, hostname: Hostname) -> Result<Self> {
        let (sender, rollout) = watch::channel(None);
        let gateways: Vec<String> = stack.urls().split(',').map(str::to_owned).collect();
        let authority = &stack.config().authority;
        let host = FloodingHost::start((&gateways, authority), &hostname, &rollout, CONNECTIONS)?;
        let follower = tokio::spawn(follow_rollouts(swarm_port, hostname, sender));
        Ok(Self { host, follower })
    }

    /// Ends the flood; its answers, and violations.
    ///
    /// # Errors
    /// When a task panicked.
    pub async fn finish(self) -> Result<(FloodAnswers, Vec<String>)> {
        self.follower.abort();
        let answers = self.host.finish().await?;
        let mut faults = Vec::new();
        if !answers.refused.contains_key("rate-limited") {
            faults.push(format!("its limits were never reached: {answers:?}"));
        }
        if answers.stored == 0 {
            faults.push(format!("none of its events was stored: {answers:?}"));
        }
        Ok((answers, faults))
    }
}

async fn follow_rollouts(
    swarm_port: u16,
    hostname: Hostname,
    newest: watch::Sender<Option<RolloutId>>,
) {
    loop {
        let hostname = hostname.clone();
        let asked = tokio::task::spawn_blocking(move || rollout_of(swarm_port, &hostname)).await;
        if let Ok(Ok(Some(rollout_id))) = asked {
            newest.send_replace(Some(rollout_id));
        }
        tokio::time::sleep(ROLLOUT_INTERVAL).await;
    }
}

/// A rollout that the host follows, and that the fold therefore knows.
fn rollout_of(swarm_port: u16, hostname: &Hostname) -> Result<Option<RolloutId>> {
    let body = monitoring::get(swarm_port, "/state")?.body;
    let state: SwarmState = serde_json::from_str(&body)?;
    let host = state.hosts.get(hostname).context("no such host")?;
    let current = host.rollouts.iter().rfind(|(_, rollout)| !rollout.replaced);
    Ok(current.map(|(rollout_id, _)| rollout_id.clone()))
}
