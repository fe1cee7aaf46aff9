//! Wires the service and keeps it running until the process shall stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::Bus;
use nixfleet_http::{Access, Backends, Listener, RELEASE_PART, Rates, Releases, Reloads};
use nixfleet_proto::subject::Partition;
use nixfleet_service::{CancellationToken, Context};
use nixfleet_store::Store;

use crate::admission::KnownRollouts;
use crate::app_state::App;
use crate::config::Config;
use crate::dispatch::DispatchDelivery;
use crate::event_fast_path::AgentGateway;
use crate::event_log::EventLog;
use crate::routes::{self, paths::DISPATCH_ROUTE};
use crate::{followers, log_capacity};

pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    context.readiness.expect(&Backends::PARTS);
    context.readiness.expect(&["dispatches", RELEASE_PART]);
    let listener = Listener::bind(&config.tls, &config.http, &config.limits).await?;
    let store = Store::connect(&config.database).context("opening the database")?;
    let name = format!("ingest-{}", context.instance);
    let bus = tokio::select! {
        bus = Bus::connect(config.bus.clone(), &name) => bus.context("connecting to the bus")?,
        () = context.shutdown.cancelled() => return Ok(()),
    };
    let access = Access::new(routes::table(), &config.http, &config.limits)
        .with_rates(Rates::new(&config.rates))
        .with_polls(DISPATCH_ROUTE);
    let trust_file = config.trust.trust_file.clone();
    let app = Arc::new(App {
        access: Arc::new(access),
        releases: Releases::new(bus.manifests(), store.clone(), trust_file).with_host_channels(),
        dispatches: DispatchDelivery::default(),
        known_rollouts: KnownRollouts::new(config.bus.partitions),
        log: EventLog::new(&bus),
        shutdown: context.shutdown.clone(),
        backends: Backends::new(bus.clone(), store),
        config,
    });
    // Followers stop after the listener: the last requests may still ask what they know.
    let stop = CancellationToken::new();
    let reloads = Reloads {
        access: &app.access,
        trust: &app.config.trust,
        bus: &bus,
        service: "ingest",
        stop: &stop,
    };
    listener.spawn_reloads(&context, reloads);
    spawn_followers(&context, &app, &stop);
    let drain = Duration::from_secs(app.config.admin.drain_seconds);
    let gateway = AgentGateway::new(&app);
    let served = listener
        .serve(gateway, drain, context.shutdown.clone())
        .await;
    stop.cancel();
    bus.close().await;
    served
}

fn spawn_followers(context: &Context<Config>, app: &Arc<App>, stop: &CancellationToken) {
    let tasks = &context.tasks;
    let partitions = app.backends.bus.partitions();
    app.dispatches.expect(Partition::all(partitions));
    for partition in Partition::all(partitions) {
        let follower = followers::dispatches(Arc::clone(app), partition, stop.clone());
        tasks.spawn(format!("dispatches-{partition}"), async {
            follower.await;
            Ok(())
        });
    }
    let layout = app.backends.follow_layout(stop.clone());
    tasks.spawn("layout", async {
        layout.await.context("comparing the streams")
    });
    let (following, readiness, stopping) =
        (Arc::clone(app), context.readiness.clone(), stop.clone());
    tasks.spawn("releases", async move {
        let service = followers::SERVICE;
        following
            .releases
            .follow(service, readiness, stopping)
            .await;
        Ok(())
    });
    let rollouts = followers::rollouts(Arc::clone(app), stop.clone());
    tasks.spawn("rollouts", async {
        rollouts.await;
        Ok(())
    });
    let (watched, stopping) = (Arc::clone(app), stop.clone());
    tasks.spawn("log capacity", async move {
        log_capacity::follow(&watched.backends.bus, &watched.log.capacity, stopping).await;
        Ok(())
    });
    let (reported, readiness, stopping) =
        (Arc::clone(app), context.readiness.clone(), stop.clone());
    tasks.spawn("readiness", async move {
        let dispatches = |readiness: &nixfleet_service::Readiness| {
            let loaded = reported.dispatches.is_loaded();
            let loaded = loaded
                .then_some(())
                .ok_or("the queue is not loaded yet".to_owned());
            readiness.set_ready("dispatches", loaded);
        };
        let backends = &reported.backends;
        backends
            .report_readiness(readiness, stopping, dispatches)
            .await;
        Ok(())
    });
    let (limited, stopping) = (Arc::clone(app), stop.clone());
    tasks.spawn("rates", async move {
        let count = |hosts: usize| {
            metrics::gauge!("nixfleet_rated_hosts").set(hosts as f64);
            limited.log.expect_hosts(hosts);
        };
        if let Some(rates) = &limited.access.rates {
            rates.prune_until_stopped(stopping, count).await;
        }
        Ok(())
    });
}
