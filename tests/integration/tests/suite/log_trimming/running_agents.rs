//! All agents of a fleet, each in a task of its own.

use chrono::Utc;
use futures::future::try_join_all;
use nixfleet_harness::ScriptedAgent;
use nixfleet_proto::wire::Dispatch;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Whether the activation of a dispatch fails.
pub type Fails = fn(&Dispatch) -> bool;

/// Running agents.
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<ScriptedAgent>>,
}

impl Running {
    /// Starts agents that follow dispatches.
    pub fn start(agents: Vec<ScriptedAgent>, fails: Fails) -> Self {
        let (stop, stopped) = watch::channel(false);
        let agents = agents.into_iter();
        let tasks = agents.map(|agent| tokio::spawn(follow(agent, fails, stopped.clone())));
        Self {
            stop,
            tasks: tasks.collect(),
        }
    }

    /// Stops the agents once each has finished its reports.
    pub async fn stop(self) -> Vec<ScriptedAgent> {
        self.stop.send_replace(true);
        try_join_all(self.tasks).await.unwrap()
    }
}

async fn follow(
    mut agent: ScriptedAgent,
    fails: Fails,
    mut stopped: watch::Receiver<bool>,
) -> ScriptedAgent {
    loop {
        let polled = tokio::select! {
            polled = agent.poll() => polled.unwrap(),
            _ = stopped.wait_for(|stop| *stop) => return agent,
        };
        let Some(dispatch) = polled else { continue };
        let reported = if fails(&dispatch) {
            agent.roll_back(dispatch, Utc::now()).await
        } else {
            agent.activate(dispatch, Utc::now()).await
        };
        reported.unwrap();
    }
}

/// Agents whose host names begin with a channel report one round of probes.
pub async fn probe(agents: &mut [ScriptedAgent], channel: &str) {
    let agents = agents.iter_mut();
    let asked = agents.filter(|agent| agent.hostname().as_str().starts_with(channel));
    let probed = asked.map(|agent| agent.probe(Utc::now()));
    try_join_all(probed).await.unwrap();
}

/// Number of stored events of all agents.
pub fn stored(agents: &[ScriptedAgent]) -> u64 {
    let rollouts = agents.iter().flat_map(|agent| agent.stored().values());
    rollouts.sum()
}
