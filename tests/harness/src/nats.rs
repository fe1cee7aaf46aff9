//! A nats-server of our own.

mod authentication;
mod bus_users;
mod cluster;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::binaries::ServerBinaries;
use crate::process::{Process, ProcessSpec};
use crate::wait::wait_blocking;
use crate::{monitoring, ports, scratch};

pub use authentication::Authentication;
pub use bus_users::BusUsers;
pub use cluster::Cluster;

/// Long enough for a member of a cluster, which catches up before it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(90);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Attempts to bind a free port, because another process may bind it first.
const PORT_ATTEMPTS: u32 = 5;

/// A nats-server with JetStream, synced on every append as in production.
#[derive(Debug)]
pub struct Nats {
    name: String,
    dir: PathBuf,
    port: u16,
    monitor_port: u16,
    /// Further lines of its configuration.
    settings: String,
    process: Option<Process>,
}

impl Nats {
    /// Starts one on free ports with an empty store.
    ///
    /// # Errors
    /// When the binary is missing or does not start.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_with(name, "")
    }

    /// Starts a server with additional lines in its configuration.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub fn start_with(name: &str, settings: &str) -> Result<Self> {
        let mut last = None;
        for _ in 0..PORT_ATTEMPTS {
            let mut nats = Self::new(name, settings)?;
            match nats.restart() {
                Ok(()) => return Ok(nats),
                Err(error) => last = Some(error),
            }
        }
        Err(last
            .expect("at least one attempt was made")
            .context("nats-server did not start"))
    }

    /// Starts a server with TLS and the accounts of these users.
    ///
    /// # Errors
    /// As [`Nats::start`].
    pub fn start_for(name: &str, users: &BusUsers) -> Result<Self> {
        Self::start_with(name, users.settings())
    }

    /// A server that does not run yet, with ports and an empty store.
    fn new(name: &str, settings: &str) -> Result<Self> {
        let dir = scratch::dir(&format!("nats-{name}"))?;
        Ok(Self {
            // The name is what proves that the server answering on our port is ours.
            name: format!("nixfleet-{}-{}", std::process::id(), dir_name(&dir)),
            dir,
            port: ports::free()?,
            monitor_port: ports::free()?,
            settings: settings.to_owned(),
            process: None,
        })
    }

    /// Starts a stopped server on the same ports and store.
    ///
    /// # Errors
    /// When it does not become ready, or another server responds on its port.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.wait_ready()
    }

    fn launch(&mut self) -> Result<()> {
        self.kill()?;
        let config = self.write_config()?;
        let servers = ServerBinaries::find()?;
        let mut spec = ProcessSpec::new("nats-server", servers.nats_server, self.log());
        spec.args = vec!["-c".to_owned(), config.display().to_string()];
        self.process = Some(Process::start(spec)?);
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("nats-server does not run")?;
        wait_blocking("nats-server ready", START_TIMEOUT, || {
            process.check_alive()?;
            Ok(monitoring::get(self.monitor_port, "/healthz")
                .ok()
                .filter(|answer| answer.status == 200))
        })?;
        let varz = monitoring::get(self.monitor_port, "/varz")?;
        let varz: serde_json::Value =
            serde_json::from_str(&varz.body).context("reading /varz of nats-server")?;
        ensure!(
            varz["server_name"] == self.name.as_str() && varz["port"] == self.port,
            "another nats-server ({}) responds on port {}",
            varz["server_name"],
            self.monitor_port
        );
        Ok(())
    }

    fn write_config(&self) -> Result<PathBuf> {
        let path = self.dir.join("nats.conf");
        let text = format!(
            "server_name: {name}\nhost: 127.0.0.1\nport: {port}\nhttp: 127.0.0.1:{monitor}\n\
             max_payload: 8MB\n\
             jetstream {{\n  store_dir: \"{store}\"\n  max_memory_store: 256MB\n  \
             max_file_store: 4TB\n  sync_interval: always\n}}\n{settings}",
            name = self.name,
            port = self.port,
            monitor = self.monitor_port,
            store = self.dir.join("js").display(),
            settings = self.settings,
        );
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn log(&self) -> PathBuf {
        self.dir.join("nats.log")
    }

    /// Server name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `nats://…` for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Size of the largest file with messages.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn largest_message_block(&self) -> Result<u64> {
        largest(&self.dir.join("js"))
    }

    /// Store directory.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.join("js")
    }

    /// Port of the HTTP monitor (`/varz`, `/jsz`).
    pub fn monitor_port(&self) -> u16 {
        self.monitor_port
    }

    /// Process id, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Limits the size of the server's files to `bytes`, as a full disk would; `None` removes the limit.
    /// After a failed write the server does not write to that stream again until it is restarted.
    ///
    /// # Errors
    /// When it does not run or the operating system refuses.
    pub fn limit_file_size(&self, bytes: Option<u64>) -> Result<()> {
        let process = self.process.as_ref().context("nats-server does not run")?;
        process.limit_file_size(bytes)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// An orderly stop.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::TERM, STOP_TIMEOUT)?;
        }
        Ok(())
    }

    /// Copies the store; only while stopped.
    ///
    /// # Errors
    /// When it runs, or the files cannot be copied.
    pub fn back_up(&self) -> Result<()> {
        ensure!(self.process.is_none(), "nats-server still runs");
        scratch::copy(&self.dir.join("js"), &self.dir.join("backup"))
    }

    /// Replaces the store with the copy; the server must be stopped.
    ///
    /// # Errors
    /// When it runs, or the files cannot be copied.
    pub fn restore(&self) -> Result<()> {
        ensure!(self.process.is_none(), "nats-server still runs");
        scratch::copy(&self.dir.join("backup"), &self.dir.join("js"))
    }

    /// Throws the store away; only while stopped.
    ///
    /// # Errors
    /// When it runs or the files cannot be removed.
    pub fn erase(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "nats-server still runs");
        let store = self.dir.join("js");
        if store.exists() {
            std::fs::remove_dir_all(&store)
                .with_context(|| format!("removing {}", store.display()))?;
        }
        Ok(())
    }
}

fn largest(dir: &Path) -> Result<u64> {
    let mut most = 0;
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            most = most.max(largest(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "blk") {
            most = most.max(path.metadata()?.len());
        }
    }
    Ok(most)
}

fn dir_name(dir: &Path) -> String {
    dir.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
