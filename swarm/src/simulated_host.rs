//! A simulated host: runs its agent on its machine, crashes and restarts it.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_proto::Hostname;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::closure_behavior::Outage;
use crate::simulated_machine::{AgentRestart, MachineFaults, SimulatedMachine};
use crate::state_recorder::{HostStateRecorder, Incident};
use nixfleet_agent::activator::Activator;
use nixfleet_agent::core::AgentConfig;
use nixfleet_agent::journal_store::{JournalStore, MemoryJournalStore};
use nixfleet_agent::shell::{Agent, AgentError, AgentParts, Client, Observer, ReleaseFetcher};

/// A host before it starts.
pub struct SimulatedHost {
    pub hostname: Hostname,
    pub config: AgentConfig,
    pub machine: Arc<SimulatedMachine>,
    /// Faults to inject.
    pub faults: MachineFaults,
    pub client: Arc<Client>,
    /// The switch of its network.
    pub link: watch::Sender<bool>,
    /// Fetcher of artifacts, shared by the agents of the process.
    pub fetcher: Arc<ReleaseFetcher>,
    pub watch: Arc<HostStateRecorder>,
}

impl SimulatedHost {
    /// Waits for its turn, then runs until `shutdown`.
    ///
    /// # Errors
    /// The agent failed.
    pub async fn run(self, delay: Duration, shutdown: CancellationToken) -> Result<(), AgentError> {
        let Self {
            hostname,
            config,
            machine,
            faults,
            client,
            link,
            fetcher,
            watch,
        } = self;
        let lifecycle = AgentLifecycle {
            hostname,
            config,
            machine: Arc::clone(&machine),
            journals: Arc::new(MemoryJournalStore::default()),
            client,
            fetcher,
            watch: Arc::clone(&watch),
        };
        let MachineFaults { restarts, outages } = faults;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
        tokio::select! {
            result = lifecycle.run(restarts, shutdown) => result,
            never = lose_network(outages, &link, &machine, &watch) => match never {},
        }
    }
}

struct AgentLifecycle {
    hostname: Hostname,
    config: AgentConfig,
    machine: Arc<SimulatedMachine>,
    journals: Arc<MemoryJournalStore>,
    client: Arc<Client>,
    fetcher: Arc<ReleaseFetcher>,
    watch: Arc<HostStateRecorder>,
}

impl AgentLifecycle {
    async fn run(
        &self,
        mut restarts: mpsc::Receiver<AgentRestart>,
        shutdown: CancellationToken,
    ) -> Result<(), AgentError> {
        while !shutdown.is_cancelled() {
            let agent = Agent::new(self.parts())?;
            self.incident(Incident::Started);
            // Dropping the future of the agent at any point is the crash.
            let restart = tokio::select! {
                ended = agent.run(shutdown.clone()) => return ended,
                restart = next_restart(&mut restarts) => restart,
            };
            self.incident(if restart.reboot {
                Incident::Rebooted
            } else {
                Incident::Crashed
            });
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(restart.restart_after) => {}
            }
            if restart.reboot {
                self.machine.boot();
            }
        }
        Ok(())
    }

    fn parts(&self) -> AgentParts {
        AgentParts {
            hostname: self.hostname.clone(),
            config: self.config.clone(),
            activator: Arc::clone(&self.machine) as Arc<dyn Activator>,
            journals: Arc::clone(&self.journals) as Arc<dyn JournalStore>,
            client: Arc::clone(&self.client),
            fetcher: Arc::clone(&self.fetcher),
            observer: Arc::clone(&self.watch) as Arc<dyn Observer>,
        }
    }

    fn incident(&self, incident: Incident) {
        self.watch.incident(incident, self.machine.running());
    }
}

async fn next_restart(restarts: &mut mpsc::Receiver<AgentRestart>) -> AgentRestart {
    match restarts.recv().await {
        Some(restart) => {
            tokio::time::sleep(restart.after).await;
            restart
        }
        // The machine holds the sender as long as the host runs.
        None => std::future::pending().await,
    }
}

async fn lose_network(
    mut outages: mpsc::Receiver<Outage>,
    link: &watch::Sender<bool>,
    machine: &SimulatedMachine,
    watch: &HostStateRecorder,
) -> std::convert::Infallible {
    while let Some(outage) = outages.recv().await {
        tokio::time::sleep(outage.after).await;
        link.send_replace(false);
        watch.incident(Incident::WentOffline, machine.running());
        tokio::time::sleep(outage.duration).await;
        link.send_replace(true);
        watch.incident(Incident::CameOnline, machine.running());
    }
    std::future::pending().await
}
