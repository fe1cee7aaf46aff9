//! Starts the hosts of a swarm one after the other and joins them all at the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_proto::Hostname;
use nixfleet_trust::TrustFile;
use rustls::RootCertStore;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::agent_certificates::Certificates;
use crate::profile::Profile;
use crate::simulated_host::SimulatedHost;
use crate::simulated_machine::SimulatedMachine;
use crate::state_recorder::SwarmStateRecorder;
use crate::swarm_state;
use nixfleet_agent::artifact_verifier::Verifier;
use nixfleet_agent::core::AgentConfig;
use nixfleet_agent::shell::{Client, ReleaseFetcher, tls};

/// Concurrent downloads and verifications of artifacts in one process; each artifact may be as large as the
/// fleet.
const DOWNLOADS_MAX: usize = 4;
/// Interval between two checks whether the state file is stale.
const STATE_INTERVAL: Duration = Duration::from_secs(1);
/// Largest age of an unchanged state file.
const STATE_AGE_MAX: Duration = Duration::from_secs(5);
/// Writing the state of thousands of hosts is slow; it may take this fraction of the time.
const STATE_SHARE: u32 = 10;

/// Configuration of a swarm.
pub struct SwarmConfig {
    /// Base URLs of the control plane, comma separated.
    pub url: String,
    /// Certificate authorities of the servers, PEM.
    pub ca_pem: Vec<u8>,
    pub certificates: Certificates,
    /// The trust file each agent holds.
    pub trust: TrustFile,
    pub hostnames: Vec<Hostname>,
    pub profile: Profile,
    /// Decides all draws.
    pub seed: u64,
    pub config: AgentConfig,
    /// Hosts of the largest fleet whose artifacts are read.
    pub fleet_hosts_max: usize,
    pub starts_per_second: u32,
    pub state_file: Option<PathBuf>,
    pub admin: Option<std::net::SocketAddr>,
    /// Interval of progress lines; `None`: none.
    pub progress_interval: Option<Duration>,
}

/// Runs until `shutdown`.
///
/// # Errors
/// Part of the configuration cannot be used, the state cannot be written, or an agent failed.
pub async fn run(config: SwarmConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let profile = Arc::new(config.profile.clone());
    let initial = config
        .hostnames
        .iter()
        .map(|hostname| (hostname.clone(), profile.initial_closure_of(hostname)));
    let observer = Arc::new(SwarmStateRecorder::new(
        config.seed,
        chrono::Utc::now(),
        initial,
    ));
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    if let Some(address) = config.admin {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("binding the admin listener to {address}"))?;
        let local = listener.local_addr().context("reading the admin address")?;
        tracing::info!(address = %local, "admin listens");
        let service = admin::serve(listener, Arc::clone(&observer), shutdown.clone());
        tasks.spawn(async { service.await.context("serving the admin listener") });
    }
    start_hosts(&config, &profile, &observer, &mut tasks, &shutdown)?;
    let report = report(&config, Arc::clone(&observer), shutdown.clone());
    let report = tokio::spawn(report);

    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.context("a task panicked").and_then(|ended| ended);
        if ended.is_err() && result.is_ok() {
            result = ended;
            shutdown.cancel();
        }
    }
    shutdown.cancel();
    report.await.context("the reporter panicked")??;
    result
}

fn start_hosts(
    config: &SwarmConfig,
    profile: &Arc<Profile>,
    observer: &SwarmStateRecorder,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let roots = tls::roots(&config.ca_pem).context("reading the server CA")?;
    let verifier = Verifier::new(config.trust.clone());
    let fetcher = Arc::new(ReleaseFetcher::new(verifier, DOWNLOADS_MAX));
    for (index, hostname) in config.hostnames.iter().enumerate() {
        let host = build_host(config, hostname, (profile, observer, &fetcher, &roots))
            .with_context(|| format!("preparing host {hostname}"))?;
        // The starts are spread, because simultaneous handshakes would dominate the first seconds.
        let delay = Duration::from_secs_f64(index as f64 / f64::from(config.starts_per_second));
        let name = hostname.clone();
        let run = host.run(delay, shutdown.clone());
        tasks.spawn(async move {
            run.await
                .with_context(|| format!("running the agent of {name}"))
        });
    }
    Ok(())
}

fn build_host(
    config: &SwarmConfig,
    hostname: &Hostname,
    parts: (
        &Arc<Profile>,
        &SwarmStateRecorder,
        &Arc<ReleaseFetcher>,
        &Arc<RootCertStore>,
    ),
) -> anyhow::Result<SimulatedHost> {
    let (profile, observer, fetcher, roots) = parts;
    let identity = config.certificates.identity(hostname)?;
    let tls = tls::client_config(Arc::clone(roots), &identity)?;
    let (link, online) = watch::channel(true);
    let client = Client::new(
        &config.url,
        hostname.as_str(),
        tls,
        online,
        config.fleet_hosts_max,
    )?;
    let (machine, faults) =
        SimulatedMachine::new(hostname.clone(), config.seed, Arc::clone(profile));
    Ok(SimulatedHost {
        hostname: hostname.clone(),
        config: config.config.clone(),
        machine: Arc::new(machine),
        faults,
        client: Arc::new(client),
        link,
        fetcher: Arc::clone(fetcher),
        watch: observer
            .watch(hostname)
            .context("every host of the plan is watched")?,
    })
}

/// Writes the state file and the progress lines, both a last time at the end.
fn report(
    config: &SwarmConfig,
    observer: Arc<SwarmStateRecorder>,
    shutdown: CancellationToken,
) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
    let file = config.state_file.clone();
    let progress = config.progress_interval;
    async move {
        let mut ticks = tokio::time::interval(STATE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut written: Option<Written> = None;
        let mut said_at = tokio::time::Instant::now();
        loop {
            let last = tokio::select! {
                () = shutdown.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let changes = observer.changes();
            if let Some(file) = &file
                && (last
                    || written
                        .as_ref()
                        .is_none_or(|written| written.is_old(changes)))
            {
                let started = tokio::time::Instant::now();
                write(file.clone(), Arc::clone(&observer)).await?;
                written = Some(Written {
                    changes,
                    at: tokio::time::Instant::now(),
                    took: started.elapsed(),
                });
            }
            if last || progress.is_some_and(|interval| said_at.elapsed() >= interval) {
                println!("{}", progress_line(&observer.summary(chrono::Utc::now())));
                said_at = tokio::time::Instant::now();
            }
            if last {
                return Ok(());
            }
        }
    }
}

/// A state file as it was last written.
struct Written {
    changes: u64,
    at: tokio::time::Instant,
    took: Duration,
}

impl Written {
    fn is_old(&self, changes: u64) -> bool {
        let age = self.at.elapsed();
        let changed = self.changes != changes || age >= STATE_AGE_MAX;
        changed && age >= self.took * STATE_SHARE
    }
}

async fn write(file: PathBuf, observer: Arc<SwarmStateRecorder>) -> anyhow::Result<()> {
    let path = file.clone();
    tokio::task::spawn_blocking(move || {
        swarm_state::write_atomically(&path, &observer.state(chrono::Utc::now()))
    })
    .await
    .context("writing the state panicked")?
    .with_context(|| format!("writing the state to {}", file.display()))
}

fn progress_line(state: &swarm_state::SwarmState) -> String {
    let totals = &state.totals;
    let latency = &state.dispatch_latency_ms;
    let mut line = format!(
        "swarm: {}/{} online, events {} accepted {} pending {} dead, dispatches {} (p50 {} ms, p99 {} ms), refused {}",
        totals.online,
        totals.hosts,
        totals.accepted_events,
        totals.pending_events,
        totals.refused_events,
        totals.dispatches,
        latency.p50,
        latency.p99,
        totals.refused_dispatches,
    );
    for (rollout, states) in &state.hosts_by_state {
        line.push_str(&format!("; {rollout}"));
        for (host_state, count) in states {
            line.push_str(&format!(" {} {count}", host_state.name()));
        }
    }
    line
}
