//! Runs the archive: one lease per partition and one for the shared streams; each stream is
//! archived by a task of its own while its lease is held.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use nixfleet_bus::{Bus, Leases, Membership};
use nixfleet_service::{CancellationToken, Context};
use nixfleet_store::Store;
use tokio::task::JoinSet;

use crate::archive::stream_archiver::archive_stream;
use crate::config::Config;
use crate::log_trimmer::trim_logs;
use crate::stream::{LeaseUnit, units};
use crate::stream_layout::{follow_layout, prepare};
use crate::task_context::TaskContext;
use crate::telemetry;

/// Name of the service in leases and metrics.
const SERVICE: &str = "eventlog";
const CHECK_EVERY: Duration = Duration::from_secs(2);

pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    context.readiness.expect(&["bus", "database"]);
    let store = Store::connect(&config.database).context("opening the database")?;
    let name = format!("{SERVICE}/{}", context.instance);
    let bus = tokio::select! {
        bus = Bus::connect(config.bus.clone(), &name) => bus.context("connecting to the bus")?,
        () = context.shutdown.cancelled() => return Ok(()),
    };
    let shared = Arc::new(TaskContext {
        readiness: context.readiness.clone(),
        config,
        bus,
        store,
    });
    let worked = tokio::select! {
        worked = work(&shared, &context) => worked,
        () = watch_connections(&shared) => Ok(()),
    };
    shared.bus.close().await;
    shared.store.close();
    worked
}

/// Archives all streams whose lease this instance holds, until shutdown.
async fn work(shared: &Arc<TaskContext>, context: &Context<Config>) -> anyhow::Result<()> {
    let shutdown = &context.shutdown;
    let prepared = tokio::select! {
        prepared = prepare(shared) => prepared,
        () = shutdown.cancelled() => return Ok(()),
    };
    prepared?;
    follow_layout(shared, context);
    let units = units(shared.bus.names(), shared.bus.partitions());
    let keys: Vec<String> = units.iter().map(|unit| unit.key.clone()).collect();
    let member = Membership {
        service: SERVICE,
        instance: &context.instance,
        keys: &keys,
        config: shared.config.lease,
    };
    let leases = shared.bus.leases(member, shutdown);
    let holds = units
        .iter()
        .map(|unit| work_while_leased(shared, &leases, unit, shutdown));
    join_all(holds).await;
    Ok(())
}

async fn watch_connections(shared: &TaskContext) {
    let mut tick = tokio::time::interval(CHECK_EVERY);
    loop {
        tick.tick().await;
        shared.readiness.set_ready("bus", shared.bus.check());
        let database = shared.store.schema_ready().await;
        let database = database.map_err(|error| error.to_string());
        shared.readiness.set_ready("database", database);
    }
}

/// Archives one unit whenever its lease is held; otherwise stands by.
async fn work_while_leased(
    shared: &Arc<TaskContext>,
    leases: &Leases,
    unit: &LeaseUnit,
    shutdown: &CancellationToken,
) {
    while !shutdown.is_cancelled() {
        let lease = tokio::select! {
            lease = leases.acquire(&unit.key) => lease,
            () = shutdown.cancelled() => return,
        };
        let stop = CancellationToken::new();
        // One task per stream, so that one writes to the database while another does.
        let mut tasks = JoinSet::new();
        for stream in unit.streams.iter().cloned() {
            let of = (stream, unit.partition);
            tasks.spawn(archive_stream(Arc::clone(shared), of, stop.clone()));
        }
        if let Some(partition) = unit.partition {
            tasks.spawn(trim_logs(Arc::clone(shared), partition, stop.clone()));
        }
        let stop_requested = async {
            tokio::select! {
                () = lease.recalled() => {}
                () = shutdown.cancelled() => {}
            }
            stop.cancel();
            // The current turn is finished first.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = join_all_tasks(&mut tasks) => {}
            () = stop_requested => {}
            // An aborted transaction was either committed or not; the cursor tells.
            () = lease.lost() => {}
        }
        tasks.shutdown().await;
        telemetry::reset(&shared.readiness, unit);
        lease.release().await;
    }
}

/// Waits for all tasks.
///
/// # Panics
/// When a task panics.
async fn join_all_tasks(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
