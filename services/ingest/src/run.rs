//! Wires the service and keeps it running until the process shall stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use axum_server::{Handle, Server};
use hyper_util::rt::TokioTimer;
use nixfleet_bus::Bus;
use nixfleet_proto::subject::Partition;
use nixfleet_service::{CancellationToken, Context};
use nixfleet_store::Store;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::connections::MutualTls;
use crate::dispatches::Dispatches;
use crate::gateway::Gateway;
use crate::log_room::LogRoom;
use crate::rates::Rates;
use crate::releases::Releases;
use crate::revocations::{Revoked, Source};
use crate::state::App;
use crate::{follow, log_room, releases, tls};

/// Share of the drain that open requests get before their connections are closed; the rest is for
/// appends that still wait for their acknowledgement.
const DRAIN_SHARE: f64 = 0.6;

/// Runs the gateway.
///
/// # Errors
/// When a file, the bus or the listener cannot be used at start, or the listener fails later.
pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    context.readiness.expect(&[
        "bus",
        "database",
        "dispatches",
        follow::LAYOUT,
        releases::PART,
    ]);
    let certificates = RustlsConfig::from_config(tls::load(&config.tls)?);
    let listener = TcpListener::bind(config.http.listen)
        .await
        .with_context(|| format!("binding to {}", config.http.listen))?;
    let address = listener.local_addr().context("reading the bound address")?;
    let store = Store::connect(&config.database).context("opening the database")?;
    let name = format!("ingest-{}", context.instance);
    let bus = tokio::select! {
        bus = Bus::connect(config.bus.clone(), &name) => bus.context("connecting to the bus")?,
        () = context.shutdown.cancelled() => return Ok(()),
    };
    let app = Arc::new(App {
        input: bus.input(),
        releases: Releases::new(bus.manifests(), config.trust.trust_file.clone()),
        dispatches: Dispatches::default(),
        log_room: LogRoom::new(config.bus.partitions),
        revoked: Revoked::default(),
        requests: Arc::new(Semaphore::new(config.limits.requests_in_flight)),
        polls: Arc::new(Semaphore::new(config.limits.polls)),
        rates: Rates::new(&config.limits),
        memory: App::memory_bound(config.limits.bodies_in_flight_bytes),
        pushing: Arc::new(Semaphore::new(1)),
        shutdown: context.shutdown.clone(),
        bus: bus.clone(),
        config,
        store,
    });
    // Followers stop after the listener: the last requests may still ask what they know.
    let stop = CancellationToken::new();
    spawn_followers(&context, &app, &stop, certificates.clone());
    tracing::info!(%address, "listening");
    let served = serve(&context, &app, listener, certificates).await;
    stop.cancel();
    bus.close().await;
    served
}

fn spawn_followers(
    context: &Context<Config>,
    app: &Arc<App>,
    stop: &CancellationToken,
    certificates: RustlsConfig,
) {
    let tasks = &context.tasks;
    app.dispatches.expect(Partition::all(app.bus.partitions()));
    for partition in Partition::all(app.bus.partitions()) {
        let follower = follow::dispatches(Arc::clone(app), partition, stop.clone());
        tasks.spawn(format!("dispatches-{partition}"), async {
            follower.await;
            Ok(())
        });
    }
    let layout = follow::layout(app, stop.clone());
    tasks.spawn("layout", async {
        layout.await.context("keeping the streams")
    });
    let (following, health, stopping) = (Arc::clone(app), context.readiness.clone(), stop.clone());
    tasks.spawn("releases", async move {
        following.releases.follow(health, stopping).await;
        Ok(())
    });
    let rollouts = follow::rollouts(Arc::clone(app), stop.clone());
    tasks.spawn("rollouts", async {
        rollouts.await;
        Ok(())
    });
    let (watched, stopping) = (Arc::clone(app), stop.clone());
    tasks.spawn("log room", async move {
        log_room::follow(&watched.bus, &watched.log_room, stopping).await;
        Ok(())
    });
    let health = follow::health(Arc::clone(app), context.readiness.clone(), stop.clone());
    tasks.spawn("health", async {
        health.await;
        Ok(())
    });
    let (limited, stopping) = (Arc::clone(app), stop.clone());
    tasks.spawn("rates", async move {
        let count = |hosts: usize| {
            metrics::gauge!("nixfleet_rated_hosts").set(hosts as f64);
            limited.input.expect_clients(hosts);
        };
        limited.rates.keep_small(stopping, count).await;
        Ok(())
    });
    let reload = tls::reload(app.config.tls.clone(), certificates, stop.clone());
    tasks.spawn("tls", async {
        reload.await;
        Ok(())
    });
    if let Some(source) = Source::new(&app.config.trust) {
        let (app, health, stop) = (Arc::clone(app), context.readiness.clone(), stop.clone());
        let every = Duration::from_secs(app.config.trust.revocations_seconds);
        health.expect(&[crate::revocations::PART]);
        tasks.spawn("revocations", async move {
            source.follow(&app.revoked, every, health, stop).await;
            Ok(())
        });
    }
}

/// Serves until the shutdown, then lets open requests finish within their share of the drain.
async fn serve(
    context: &Context<Config>,
    app: &Arc<App>,
    listener: TcpListener,
    certificates: RustlsConfig,
) -> anyhow::Result<()> {
    let config = &app.config;
    let acceptor = MutualTls::new(certificates, config);
    let handle = Handle::<std::net::SocketAddr>::new();
    let mut server = Server::from_listener(listener)
        .acceptor(acceptor)
        .handle(handle.clone());
    let header_bytes = config.limits.header_bytes;
    let builder = server.http_builder();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(config.http.header_timeout_seconds))
        .max_buf_size(usize::try_from(header_bytes).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(config.http.keep_alive_seconds))
        .keep_alive_timeout(Duration::from_secs(config.http.keep_alive_seconds))
        .max_concurrent_streams(config.limits.streams_per_connection)
        .initial_connection_window_size(config.limits.http2_window_bytes)
        .initial_stream_window_size(config.limits.http2_window_bytes)
        .max_header_list_size(header_bytes);
    let drain = Duration::from_secs(config.admin.drain_seconds).mul_f64(DRAIN_SHARE);
    let gateway = Gateway::new(app);
    let served = server.serve(tower::service_fn(move |_address| {
        std::future::ready(Ok::<_, Infallible>(gateway.clone()))
    }));
    tokio::pin!(served);
    tokio::select! {
        served = &mut served => return served.context("serving"),
        () = context.shutdown.cancelled() => handle.graceful_shutdown(Some(drain)),
    }
    served.await.context("serving")
}
