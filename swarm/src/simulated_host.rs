//! One simulated host: its agent lives, dies and starts again on its machine.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_proto::Hostname;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::machine::{Accidents, Down, Machine, Outage};
use crate::observer::{HostWatch, Incident};
use nixfleet_agent::activator::Activator;
use nixfleet_agent::core::AgentConfig;
use nixfleet_agent::shell::{Agent, AgentError, Client, Observer, Parts, Shared};
use nixfleet_agent::spool::{MemorySpool, Spool};

/// A host before it starts.
pub struct SimulatedHost {
    /// Its name.
    pub hostname: Hostname,
    /// Limits of its agent.
    pub config: AgentConfig,
    /// The machine.
    pub machine: Arc<Machine>,
    /// What will happen to it.
    pub accidents: Accidents,
    /// The connection of its agent.
    pub client: Arc<Client>,
    /// The switch of its network.
    pub link: watch::Sender<bool>,
    /// What agents of the process share.
    pub shared: Arc<Shared>,
    /// Who watches.
    pub watch: Arc<HostWatch>,
}

impl SimulatedHost {
    /// Waits for its turn, then runs until `shutdown`.
    ///
    /// # Errors
    /// The agent cannot go on.
    pub async fn run(self, delay: Duration, shutdown: CancellationToken) -> Result<(), AgentError> {
        let Self {
            hostname,
            config,
            machine,
            accidents,
            client,
            link,
            shared,
            watch,
        } = self;
        let lives = Lives {
            hostname,
            config,
            machine: Arc::clone(&machine),
            spool: Arc::new(MemorySpool::default()),
            client,
            shared,
            watch: Arc::clone(&watch),
        };
        let Accidents { downs, outages } = accidents;
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => {}
        }
        tokio::select! {
            result = lives.run(downs, shutdown) => result,
            never = lose_network(outages, &link, &machine, &watch) => match never {},
        }
    }
}

struct Lives {
    hostname: Hostname,
    config: AgentConfig,
    machine: Arc<Machine>,
    spool: Arc<MemorySpool>,
    client: Arc<Client>,
    shared: Arc<Shared>,
    watch: Arc<HostWatch>,
}

impl Lives {
    async fn run(
        &self,
        mut downs: mpsc::Receiver<Down>,
        shutdown: CancellationToken,
    ) -> Result<(), AgentError> {
        while !shutdown.is_cancelled() {
            let agent = Agent::new(self.parts())?;
            self.incident(Incident::Started);
            // Dropping the agent in the middle of whatever it does is the crash.
            let down = tokio::select! {
                ended = agent.run(shutdown.clone()) => return ended,
                down = next_down(&mut downs) => down,
            };
            self.incident(if down.reboot {
                Incident::Rebooted
            } else {
                Incident::Crashed
            });
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(down.restart_after) => {}
            }
            if down.reboot {
                self.machine.boot();
            }
        }
        Ok(())
    }

    fn parts(&self) -> Parts {
        Parts {
            hostname: self.hostname.clone(),
            config: self.config.clone(),
            activator: Arc::clone(&self.machine) as Arc<dyn Activator>,
            spool: Arc::clone(&self.spool) as Arc<dyn Spool>,
            client: Arc::clone(&self.client),
            shared: Arc::clone(&self.shared),
            observer: Arc::clone(&self.watch) as Arc<dyn Observer>,
        }
    }

    fn incident(&self, incident: Incident) {
        self.watch.incident(incident, self.machine.running());
    }
}

async fn next_down(downs: &mut mpsc::Receiver<Down>) -> Down {
    match downs.recv().await {
        Some(down) => {
            tokio::time::sleep(down.after).await;
            down
        }
        // The machine holds the sender as long as the host runs.
        None => std::future::pending().await,
    }
}

async fn lose_network(
    mut outages: mpsc::Receiver<Outage>,
    link: &watch::Sender<bool>,
    machine: &Machine,
    watch: &HostWatch,
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
