//! Three servers that hold every stream together.

use anyhow::{Context as _, Result};

use super::{Nats, PORT_ATTEMPTS};
use crate::ports;

/// Servers of a cluster: the smallest number that tolerates the loss of one.
const SERVERS: usize = 3;

/// A cluster of nats-servers with JetStream.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Nats>,
}

impl Cluster {
    /// Starts one on free ports with empty stores; `settings` go into the configuration of each
    /// server.
    ///
    /// # Errors
    /// When the binary is missing or a server does not start.
    pub fn start(name: &str, settings: &str) -> Result<Self> {
        let mut last = None;
        for _ in 0..PORT_ATTEMPTS {
            match Self::try_start(name, settings) {
                Ok(cluster) => return Ok(cluster),
                Err(error) => last = Some(error),
            }
        }
        let last = last.context("no attempt was made")?;
        Err(last.context("the cluster did not start"))
    }

    fn try_start(name: &str, settings: &str) -> Result<Self> {
        let ports = (0..SERVERS)
            .map(|_| ports::free())
            .collect::<Result<Vec<_>>>()?;
        let routes = ports.iter().map(|port| format!("nats://127.0.0.1:{port}"));
        let routes: Vec<_> = routes.collect();
        let servers = ports.iter().map(|port| {
            let settings = format!(
                "{settings}\ncluster {{\n  name: {name}\n  host: 127.0.0.1\n  port: {port}\n  \
                 routes: [{}]\n}}\n",
                routes.join(", ")
            );
            Nats::new(&format!("{name}-{port}"), &settings)
        });
        let mut servers = servers.collect::<Result<Vec<_>>>()?;
        // No server becomes ready before a majority runs.
        for server in &mut servers {
            server.launch()?;
        }
        for server in &mut servers {
            server.wait_ready()?;
        }
        Ok(Self { servers })
    }

    /// `nats://…,nats://…,nats://…` for clients.
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.servers.iter().map(Nats::url).collect();
        urls.join(",")
    }

    /// Names of the servers.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(Nats::name)
    }

    /// The server of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn server(&mut self, name: &str) -> Result<&mut Nats> {
        let mut servers = self.servers.iter_mut();
        servers
            .find(|server| server.name() == name)
            .with_context(|| format!("the cluster has no server {name}"))
    }
}
