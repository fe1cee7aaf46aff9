//! Lifetime of a service process: flags, configuration, telemetry, work, drain, exit code.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Faults, ServiceConfig};
use crate::harden::harden;
use crate::readiness::Readiness;
use crate::signals::Signals;
use crate::tasks::Tasks;
use crate::{admin, metrics, panic, telemetry};

mod arguments;
mod instance_name;
mod service_info;

use arguments::{Arguments, Mode};
use instance_name::unique_instance;
pub use service_info::ServiceInfo;

/// Exit code for an invalid configuration or invalid flags.
const EXIT_CONFIGURATION: u8 = 2;

/// Arguments of the work of a service.
#[derive(Debug)]
pub struct Context<C> {
    /// The validated configuration.
    pub config: Arc<C>,
    /// Cancelled when the process must stop; the work returns soon after.
    pub shutdown: CancellationToken,
    /// Spawns tasks that run beside the work.
    pub tasks: Tasks,
    /// Reports which components work.
    pub readiness: Readiness,
    /// Unique per process start: the configured or the machine's name, a dash, 16 hexadecimal digits.
    pub instance: String,
}

impl<C> Clone for Context<C> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            shutdown: self.shutdown.clone(),
            tasks: self.tasks.clone(),
            readiness: self.readiness.clone(),
            instance: self.instance.clone(),
        }
    }
}

/// Runs a service from its flags to its exit code.
///
/// The work returns when it is done or soon after [`Context::shutdown`]; then the tasks are joined. Exit
/// codes: 0 success, 1 failure (the work or a task failed, panicked or did not stop in time), 2
/// configuration or flags.
pub fn run<C, F>(info: ServiceInfo, work: F) -> ExitCode
where
    C: ServiceConfig,
    F: AsyncFnOnce(Context<C>) -> anyhow::Result<()>,
{
    let arguments = match Arguments::parse(&info, std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    // Hardening comes before the first secret is read.
    if let Err(error) = harden() {
        eprintln!(
            "nixfleet-{}: hardening the process failed: {error}",
            info.name
        );
        return ExitCode::FAILURE;
    }
    let config = match config::load::<C>(&arguments.sources).and_then(check_sections) {
        Ok(config) => config,
        Err(faults) => {
            eprint!("nixfleet-{}: {faults}", info.name);
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    match arguments.mode {
        Mode::Check => {
            println!("the configuration is valid");
            ExitCode::SUCCESS
        }
        Mode::Print => {
            print!("{}", config::to_toml(&config));
            ExitCode::SUCCESS
        }
        Mode::Run => match start(info, config, work) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Standard error is the last resort, because telemetry may be what failed.
                eprintln!("nixfleet-{}: {error:#}", info.name);
                ExitCode::FAILURE
            }
        },
    }
}

/// Validates the sections that every service has.
fn check_sections<C: ServiceConfig>(config: C) -> Result<C, Faults> {
    let mut faults = Faults::default();
    config.telemetry().validate("telemetry", &mut faults);
    config.admin().validate("admin", &mut faults);
    if let Some(instance) = config.instance() {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        faults.require(
            !instance.is_empty() && instance.len() <= 64 && instance.bytes().all(legal),
            "instance",
            "must be 1 to 64 of a-z, A-Z, 0-9, '-' and '_'",
        );
    }
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(faults)
    }
}

fn start<C, F>(info: ServiceInfo, config: C, work: F) -> anyhow::Result<()>
where
    C: ServiceConfig,
    F: AsyncFnOnce(Context<C>) -> anyhow::Result<()>,
{
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("another TLS provider is installed already");
    }
    let instance = unique_instance(config.instance());
    let telemetry = telemetry::init(config.telemetry(), info.name, info.version, &instance)
        .context("starting telemetry")?;
    let recorder = metrics::install(info.name, info.version).context("starting metrics")?;
    let printed = config::redacted(&config);
    tracing::info!(version = info.version, instance, config = %printed, "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let ended = runtime.block_on(supervise(info, config, instance, recorder, work));
    // Tasks that did not stop in time must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match &ended {
        Ok(()) => tracing::info!("ended"),
        Err(error) => tracing::error!(error = format!("{error:#}"), "ended with a failure"),
    }
    telemetry.close();
    ended
}

async fn supervise<C, F>(
    info: ServiceInfo,
    config: C,
    instance: String,
    recorder: metrics_exporter_prometheus::PrometheusHandle,
    work: F,
) -> anyhow::Result<()>
where
    C: ServiceConfig,
    F: AsyncFnOnce(Context<C>) -> anyhow::Result<()>,
{
    let shutdown = CancellationToken::new();
    panic::install(shutdown.clone());
    let drain = Duration::from_secs(config.admin().drain_seconds);
    let readiness = Readiness::default();
    let listener = admin::bind(config.admin(), info.version, readiness.clone(), recorder).await?;
    let stop_admin = CancellationToken::new();
    let admin = tokio::spawn(listener.serve(stop_admin.clone()));
    let signals = tokio::spawn(Signals::catch()?.watch(shutdown.clone()));
    let tasks = Tasks::new(shutdown.clone());
    let context = Context {
        config: Arc::new(config),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        readiness,
        instance,
    };
    let ended = run_and_drain(work(context), &tasks, &shutdown, drain).await;
    stop_admin.cancel();
    signals.abort();
    let admin = tokio::time::timeout(Duration::from_secs(1), admin).await;
    ended?;
    if panic::happened() {
        anyhow::bail!("a panic ended the process");
    }
    match admin {
        Ok(Ok(served)) => served,
        Ok(Err(error)) => Err(error).context("serving health and metrics"),
        // A scrape that hangs does not make the run a failure.
        Err(_elapsed) => Ok(()),
    }
}

/// Waits for the work, and after the start of the shutdown for both the work and the tasks, at most
/// `limit`.
async fn run_and_drain(
    work: impl Future<Output = anyhow::Result<()>>,
    tasks: &Tasks,
    shutdown: &CancellationToken,
    limit: Duration,
) -> anyhow::Result<()> {
    tokio::pin!(work);
    let early = tokio::select! {
        ended = &mut work => Some(ended),
        () = shutdown.cancelled() => None,
    };
    shutdown.cancel();
    let deadline = tokio::time::Instant::now() + limit;
    let ended = match early {
        Some(ended) => ended,
        None => match tokio::time::timeout_at(deadline, &mut work).await {
            Ok(ended) => ended,
            Err(_elapsed) => Err(anyhow::anyhow!("the work did not stop within {limit:?}")),
        },
    };
    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
    let joined = tasks.join(left).await;
    ended?;
    if let Some(failure) = tasks.failures().into_iter().next() {
        anyhow::bail!("task {failure}");
    }
    if !joined {
        let names = tasks.running().join(", ");
        anyhow::bail!("these tasks did not stop within {limit:?}: {names}");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
