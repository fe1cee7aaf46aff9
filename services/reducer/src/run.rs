//! Wires the service and runs one worker per partition until shutdown.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Membership};
use nixfleet_proto::subject::Partition;
use nixfleet_service::Context;
use nixfleet_store::Store;
use nixfleet_trust::ConsoleKeys;

use crate::config::{Config, OperatorsConfig};
use crate::manifests::ManifestReader;
use crate::telemetry::SERVICE;
use crate::worker::Worker;
use crate::worker::stream_layout::follow_streams;

const HEALTH_EVERY: Duration = Duration::from_secs(2);

/// Runs the reducer.
///
/// # Errors
/// When the configuration does not fit the fleet, or the bus cannot be reached in time.
pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    context.readiness.expect(&["bus", "clock", "database"]);
    let keys = Arc::new(read_keys(&config.operators)?);
    let store = Store::connect(&config.database).context("opening the database")?;
    let store = Arc::new(store);
    let name = format!("{SERVICE}-{}", context.instance);
    let bus = tokio::select! {
        () = context.shutdown.cancelled() => return Ok(()),
        bus = Bus::connect(config.bus.clone(), &name) => bus.context("connecting to the bus")?,
    };
    let prepared = tokio::select! {
        () = context.shutdown.cancelled() => Ok(()),
        prepared = prepare(&bus, &store) => prepared,
        () = watch_connections(&context, &bus, &store) => Ok(()),
    };
    if prepared.is_ok() && !context.shutdown.is_cancelled() {
        work(&context, &bus, &store, &keys).await;
    }
    bus.close().await;
    store.close();
    prepared
}

/// The keys of the consoles.
fn read_keys(config: &OperatorsConfig) -> anyhow::Result<ConsoleKeys> {
    let Some(path) = &config.keys_file else {
        tracing::warn!("operators.keys_file is not set: every command of a person is rejected");
        return Ok(ConsoleKeys::default());
    };
    let context = || format!("reading the keys of the consoles in {}", path.display());
    let bytes = std::fs::read(path).with_context(context)?;
    ConsoleKeys::parse(&bytes).with_context(context)
}

/// Runs the workers and joins them, before the bus closes.
async fn work(context: &Context<Config>, bus: &Bus, store: &Arc<Store>, keys: &Arc<ConsoleKeys>) {
    follow_streams(context, bus, store);
    let member = Membership {
        service: SERVICE,
        instance: &context.instance,
        keys: &bus.partition_keys(),
        config: context.config.lease,
    };
    let leases = bus.leases(member, &context.shutdown);
    let manifests = ManifestReader::new(bus.manifests());
    let prefetch = manifests
        .clone()
        .prefetch(bus.partitions(), context.shutdown.clone());
    context.tasks.spawn("manifests", async move {
        prefetch.await;
        Ok(())
    });
    let workers = Partition::all(bus.partitions()).map(|partition| {
        let worker = Worker {
            bus: bus.clone(),
            store: Arc::clone(store),
            manifests: manifests.clone(),
            keys: Arc::clone(keys),
            leases: leases.clone(),
            partition,
            context: context.clone(),
        };
        let (sender, joined) = tokio::sync::oneshot::channel::<()>();
        context
            .tasks
            .spawn(Worker::component(partition), async move {
                // Dropped with the task, whether it returns, fails or panics.
                let _sender = sender;
                worker.run().await
            });
        joined
    });
    let workers: Vec<_> = workers.collect();
    watch_connections(context, bus, store).await;
    for joined in workers {
        // The sender is dropped and never used: an error means that the worker ended.
        drop(joined.await);
    }
}

/// Updates the readiness of bus and database until shutdown.
async fn watch_connections(context: &Context<Config>, bus: &Bus, store: &Store) {
    loop {
        context.readiness.set_ready("bus", bus.check());
        context.readiness.set_ready("clock", bus.check_clock());
        let answered = store.ping().await;
        let state = answered.map_err(|error| format!("{:#}", anyhow::Error::new(error)));
        context.readiness.set_ready("database", state);
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(HEALTH_EVERY) => {}
        }
    }
}

/// Waits for the schema and the streams.
async fn prepare(bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let covered = store.read_covered_sequences(bus.names());
    let waited = bus.wait_for_layout(&covered).await;
    waited.context("comparing the streams")
}
