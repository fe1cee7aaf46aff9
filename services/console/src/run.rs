//! Wires the service and keeps it running until the process shall stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::Bus;
use nixfleet_http::{
    Access, Backends, EntryLog, Listener, RELEASE_PART, Releases, Reloads, RouterGateway,
    check_private,
};
use nixfleet_service::{CancellationToken, Context};
use nixfleet_store::Store;
use nixfleet_trust::sign::SigningKey;
use tokio::sync::Semaphore;

use crate::app_state::App;
use crate::config::{Config, OperatorsConfig};
use crate::routes;

pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    context.readiness.expect(&Backends::PARTS);
    context.readiness.expect(&[RELEASE_PART]);
    let listener = Listener::bind(&config.tls, &config.http, &config.limits).await?;
    let store = Store::connect(&config.database).context("opening the database")?;
    let name = format!("console-{}", context.instance);
    let bus = tokio::select! {
        bus = Bus::connect(config.bus.clone(), &name) => bus.context("connecting to the bus")?,
        () = context.shutdown.cancelled() => return Ok(()),
    };
    let access = Access::new(routes::table(), &config.http, &config.limits);
    let trust_file = config.trust.trust_file.clone();
    let app = Arc::new(App {
        access: Arc::new(access),
        releases: Releases::new(bus.manifests(), store.clone(), trust_file),
        key: read_key(&config.operators)?,
        pushing: Arc::new(Semaphore::new(1)),
        entries: EntryLog::new(&bus),
        backends: Backends::new(bus.clone(), store),
        config,
    });
    // Followers stop after the listener: the last requests may still ask what they know.
    let stop = CancellationToken::new();
    let reloads = Reloads {
        access: &app.access,
        trust: &app.config.trust,
        bus: &bus,
        service: "console",
        stop: &stop,
    };
    listener.spawn_reloads(&context, reloads);
    spawn_followers(&context, &app, &stop);
    let drain = Duration::from_secs(app.config.admin.drain_seconds);
    let gateway = RouterGateway(routes::router(Arc::clone(&app)));
    let served = listener
        .serve(gateway, drain, context.shutdown.clone())
        .await;
    stop.cancel();
    bus.close().await;
    served
}

/// The key that signs commands.
fn read_key(config: &OperatorsConfig) -> anyhow::Result<Option<SigningKey>> {
    let Some(path) = &config.key_file else {
        tracing::warn!("operators.key_file is not set: commands of people are refused");
        return Ok(None);
    };
    check_private(path)?;
    let context = || format!("reading the key for commands in {}", path.display());
    let bytes = std::fs::read(path).with_context(context)?;
    SigningKey::parse(&bytes).map(Some).with_context(context)
}

fn spawn_followers(context: &Context<Config>, app: &Arc<App>, stop: &CancellationToken) {
    let layout = app.backends.follow_layout(stop.clone());
    context.tasks.spawn("layout", async {
        layout.await.context("comparing the streams")
    });
    let (following, readiness, stopping) =
        (Arc::clone(app), context.readiness.clone(), stop.clone());
    context.tasks.spawn("releases", async move {
        let followed = following.releases.follow("console", readiness, stopping);
        followed.await;
        Ok(())
    });
    let (reported, readiness, stopping) =
        (Arc::clone(app), context.readiness.clone(), stop.clone());
    context.tasks.spawn("readiness", async move {
        let backends = &reported.backends;
        backends.report_readiness(readiness, stopping, |_| {}).await;
        Ok(())
    });
}
