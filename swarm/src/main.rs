//! `nixfleet-swarm`: runs many simulated hosts against a control plane.
//!
//! Exit codes: 0 stopped on request, 1 an agent or the state file failed, 2 the arguments or a file
//! they name cannot be used.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::TimeDelta;
use clap::{ArgGroup, Parser};
use nixfleet_agent::core::AgentConfig;
use nixfleet_proto::Hostname;
use nixfleet_swarm::agent_certificates::Certificates;
use nixfleet_swarm::profile::Profile;
use nixfleet_swarm::run::{SwarmConfig, run};
use nixfleet_trust::TrustFile;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Runs many simulated hosts against a control plane, each with its own agent, certificate and
/// connection.
#[derive(Debug, Parser)]
#[command(name = "nixfleet-swarm", version)]
#[command(group = ArgGroup::new("names").required(true).args(["hosts", "count"]))]
#[command(group = ArgGroup::new("identities").required(true).args(["certs", "ca_key"]))]
struct Arguments {
    /// Base URL of the control plane, for example https://127.0.0.1:8443; several gateways are separated by
    /// commas, and an agent whose gateway fails uses the next one.
    #[arg(long)]
    url: String,
    /// Certificate authorities of the server, PEM.
    #[arg(long)]
    ca: PathBuf,
    /// Directory with <hostname>.crt and <hostname>.key.
    #[arg(long)]
    certs: Option<PathBuf>,
    /// Certificate of the authority that issues the agents' certificates in memory; with --ca-key.
    #[arg(long, requires = "ca_key")]
    ca_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// The trust file every agent holds.
    #[arg(long)]
    trust: PathBuf,
    /// File with one hostname per line.
    #[arg(long)]
    hosts: Option<PathBuf>,
    /// Number of hosts, named <prefix>-0001 and so on.
    #[arg(long)]
    count: Option<usize>,
    /// Prefix of the hostnames.
    #[arg(long, default_value = "host")]
    prefix: String,
    /// Decides every draw of the profile.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated behaviour of the hosts, JSON; by default every closure works on every host.
    #[arg(long)]
    profile: Option<PathBuf>,
    /// File for the state of the swarm, JSON, updated continuously.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Address of the admin listener (GET /state, GET /healthz, POST /stop).
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// Heartbeat interval of a host in seconds.
    #[arg(long, default_value_t = 60.0)]
    heartbeat_seconds: f64,
    /// Seconds of silence after which a heartbeat names the running closure.
    #[arg(long, default_value_t = 2.0)]
    settle_seconds: f64,
    /// Probe interval in seconds.
    #[arg(long, default_value_t = 30.0)]
    probe_interval: f64,
    /// Seconds for which an enforce probe must fail before the host counts as failed.
    #[arg(long, default_value_t = 120.0)]
    sustained_seconds: f64,
    /// Seconds after its signing for which a manifest is followed.
    #[arg(long, default_value_t = 3600.0)]
    manifest_age_seconds: f64,
    /// Hosts of the largest fleet whose artifacts are read: 512 bytes for each, and 1 MiB.
    #[arg(long, default_value_t = 1_000_000)]
    fleet_hosts_max: usize,
    /// Longest pause between two attempts of a request, in seconds.
    #[arg(long, default_value_t = 60.0)]
    retry_max_seconds: f64,
    /// Agents started per second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    start_rate: u32,
    /// Interval of progress lines in seconds; 0 for none.
    #[arg(long, default_value_t = 5.0)]
    progress_seconds: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("error: another TLS provider is installed already");
        return ExitCode::from(1);
    }
    let config = match config(&arguments) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::from(2);
        }
    };
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn start(config: SwarmConfig) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let swarm = run(config, shutdown.clone());
        tokio::pin!(swarm);
        tokio::select! {
            ended = &mut swarm => return ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
        swarm.await
    })
}

fn config(arguments: &Arguments) -> anyhow::Result<SwarmConfig> {
    let profile = match &arguments.profile {
        Some(path) => Profile::parse(&read(path)?)
            .with_context(|| format!("reading the profile {}", path.display()))?,
        None => Profile::default(),
    };
    let trust = TrustFile::parse(&read(&arguments.trust)?)
        .with_context(|| format!("reading the trust file {}", arguments.trust.display()))?;
    Ok(SwarmConfig {
        url: arguments.url.clone(),
        ca_pem: read(&arguments.ca)?,
        certificates: certificates(arguments)?,
        trust,
        hostnames: hostnames(arguments)?,
        profile,
        seed: arguments.seed,
        config: agent_config(arguments)?,
        fleet_hosts_max: arguments.fleet_hosts_max,
        starts_per_second: arguments.start_rate,
        state_file: arguments.state.clone(),
        admin: arguments.admin,
        progress_interval: Some(arguments.progress_seconds)
            .filter(|seconds| *seconds > 0.0)
            .map(Duration::from_secs_f64),
    })
}

fn agent_config(arguments: &Arguments) -> anyhow::Result<AgentConfig> {
    let defaults = AgentConfig::default();
    let retry_max = seconds("retry-max-seconds", arguments.retry_max_seconds)?;
    Ok(AgentConfig {
        manifest_age_max: seconds("manifest-age-seconds", arguments.manifest_age_seconds)?,
        sustained_failure: seconds("sustained-seconds", arguments.sustained_seconds)?,
        probe_interval: seconds("probe-interval", arguments.probe_interval)?,
        heartbeat_interval: seconds("heartbeat-seconds", arguments.heartbeat_seconds)?,
        heartbeat_settle: seconds("settle-seconds", arguments.settle_seconds)?,
        retry_first: defaults.retry_first.min(retry_max),
        retry_max,
        ..defaults
    })
}

/// A duration of at least a millisecond, so that no loop spins.
fn seconds(name: &str, value: f64) -> anyhow::Result<TimeDelta> {
    let time = Duration::try_from_secs_f64(value).with_context(|| format!("--{name} {value}"))?;
    if time < Duration::from_millis(1) {
        bail!("--{name} {value}: must be at least 0.001");
    }
    TimeDelta::from_std(time).with_context(|| format!("--{name} {value}"))
}

fn certificates(arguments: &Arguments) -> anyhow::Result<Certificates> {
    match (&arguments.certs, &arguments.ca_cert, &arguments.ca_key) {
        (Some(directory), _, _) => Ok(Certificates::Directory(directory.clone())),
        (None, Some(certificate), Some(key)) => Certificates::authority(certificate, key)
            .context("reading the agents' certificate authority"),
        (None, _, _) => bail!("either --certs or --ca-cert with --ca-key"),
    }
}

fn hostnames(arguments: &Arguments) -> anyhow::Result<Vec<Hostname>> {
    let names: Vec<Hostname> = match (&arguments.hosts, arguments.count) {
        (Some(path), _) => String::from_utf8(read(path)?)
            .with_context(|| format!("reading {}", path.display()))?
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("reading {}", path.display()))?,
        (None, Some(count)) => (1..=count)
            .map(|number| format!("{}-{number:04}", arguments.prefix).parse())
            .collect::<Result<_, _>>()
            .context("naming the hosts")?,
        (None, None) => Vec::new(),
    };
    if names.is_empty() {
        bail!("there are no hosts to run");
    }
    Ok(names)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}
