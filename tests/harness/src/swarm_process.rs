//! The simulated fleet as a process.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use crate::pki::Pair;
use crate::process::{Process, ProcessSpec};
use crate::{binaries, monitoring, ports};

/// Agents finish their requests before they stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Configuration of a swarm.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// Directory for its files.
    pub dir: PathBuf,
    /// The gateway, or several separated by commas.
    pub url: String,
    /// Authority of the gateway, and of the agents' certificates.
    pub authority: Pair,
    /// Release trust file.
    pub trust: PathBuf,
    /// Names of the hosts.
    pub hostnames: Vec<String>,
    /// Fault profile of `nixfleet-swarm`.
    pub profile: Value,
    /// Decides every draw.
    pub seed: u64,
    /// Heartbeat interval of a host.
    pub heartbeat: Duration,
    /// Interval between two runs of a probe.
    pub probe_interval: Duration,
    /// Duration after which a failing probe fails the host.
    pub sustained: Duration,
}

/// A running swarm.
#[derive(Debug)]
pub struct Swarm {
    process: Process,
    admin_port: u16,
}

impl Swarm {
    /// Starts it.
    ///
    /// # Errors
    /// When the program or a file is missing.
    pub fn start(config: &SwarmConfig) -> Result<Self> {
        let hosts = config.dir.join("hosts.txt");
        let profile = config.dir.join("profile.json");
        std::fs::write(&hosts, config.hostnames.join("\n")).context("writing the hosts")?;
        std::fs::write(&profile, serde_json::to_vec_pretty(&config.profile)?)?;
        let admin_port = ports::free()?;
        let seconds = |duration: Duration| duration.as_secs_f64().to_string();
        let path = |path: &PathBuf| path.display().to_string();
        let options = [
            ("--url", config.url.clone()),
            ("--ca", path(&config.authority.cert)),
            ("--ca-cert", path(&config.authority.cert)),
            ("--ca-key", path(&config.authority.key)),
            ("--trust", path(&config.trust)),
            ("--hosts", path(&hosts)),
            ("--seed", config.seed.to_string()),
            ("--profile", path(&profile)),
            ("--admin", ports::local(admin_port).to_string()),
            ("--heartbeat-seconds", seconds(config.heartbeat)),
            ("--probe-interval", seconds(config.probe_interval)),
            ("--sustained-seconds", seconds(config.sustained)),
            ("--retry-max-seconds", "2".to_owned()),
        ];
        let log = config.dir.join("swarm.log");
        let mut spec =
            ProcessSpec::new("swarm", binaries::workspace_binary("nixfleet-swarm")?, log);
        spec.args = options
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect();
        Ok(Self {
            process: Process::start(spec)?,
            admin_port,
        })
    }

    /// The current state of the swarm: the document of `nixfleet-swarm`'s `GET /state`.
    ///
    /// # Errors
    /// When it has exited or does not respond.
    pub fn state(&mut self) -> Result<Value> {
        self.process.check_alive()?;
        let answer = monitoring::get(self.admin_port, "/state")?;
        serde_json::from_str(&answer.body).context("reading the swarm's state")
    }

    /// Fails with the end of its log when it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.process.check_alive()
    }

    /// Port that serves `/state`.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// An orderly stop.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop(Signal::TERM, STOP_TIMEOUT)?;
        Ok(())
    }
}
