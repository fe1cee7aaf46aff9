//! Who archives what: one lease per partition and one for the shared streams, each stream followed
//! by a task of its own while the lease is held.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use nixfleet_bus::{Bus, Floors, Leases, Membership};
use nixfleet_service::{CancellationToken, Context, Health};
use nixfleet_store::Store;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::follow::follow;
use crate::report;
use crate::stream::{Unit, units};
use crate::trim::trim;

/// Name of the service in leases and metrics.
const SERVICE: &str = "eventlog";
/// How often bus and database are asked for their state.
const CHECK: Duration = Duration::from_secs(2);
/// Pause before something that failed is tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What every task needs.
pub struct Shared {
    /// Of the program.
    pub config: Arc<Config>,
    /// Where streams are read.
    pub bus: Bus,
    /// Where they are archived.
    pub store: Store,
    /// Where it is said how that goes.
    pub health: Health,
}

/// Runs the archive.
///
/// # Errors
/// When the bus or the database cannot be used at start.
pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    context.health.expect(&["bus", "database"]);
    let store = Store::connect(&config.database).context("opening the database")?;
    let name = format!("{SERVICE}/{}", context.instance);
    let bus = tokio::select! {
        bus = Bus::connect(config.bus.clone(), &name) => bus.context("connecting to the bus")?,
        () = context.shutdown.cancelled() => return Ok(()),
    };
    let shared = Arc::new(Shared {
        health: context.health.clone(),
        config,
        bus,
        store,
    });
    let worked = tokio::select! {
        worked = work(&shared, &context) => worked,
        () = watch(&shared) => Ok(()),
    };
    shared.bus.close().await;
    shared.store.close();
    worked
}

/// Archives everything this instance has a lease for, until the shutdown.
async fn work(shared: &Arc<Shared>, context: &Context<Config>) -> anyhow::Result<()> {
    let shutdown = &context.shutdown;
    let prepared = tokio::select! {
        prepared = prepare(shared) => prepared,
        () = shutdown.cancelled() => return Ok(()),
    };
    prepared?;
    keep_layout(shared, context);
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
        .map(|unit| hold(shared, &leases, unit, shutdown));
    join_all(holds).await;
    Ok(())
}

/// Waits for the tables, then makes sure of the streams.
pub async fn prepare(shared: &Shared) -> anyhow::Result<()> {
    let floors = loop {
        match floors(shared).await {
            Ok(floors) => break floors,
            Err(error) if error.retryable() || error.schema_missing() => {
                tracing::info!(%error, "waiting for the database");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error) => return Err(error).context("reading the cursors"),
        }
    };
    shared
        .bus
        .ensure_layout(&floors)
        .await
        .context("checking the streams")
}

/// Everything the database remembers of the streams.
async fn floors(shared: &Shared) -> Result<Floors, nixfleet_store::ReadError> {
    shared.store.schema_ready().await?;
    let names = shared.bus.names();
    let floors = Floors::of_cursors(names, &shared.store.cursors().await?);
    let archived = shared.store.archive_cursors().await?.into_iter();
    Ok(floors.and_archived(archived.map(|(stream, mark)| (stream, mark.sequence))))
}

/// Brings back streams that are gone, for as long as the process works.
fn keep_layout(shared: &Arc<Shared>, context: &Context<Config>) {
    let reading = Arc::clone(shared);
    let remembered = move || {
        let shared = Arc::clone(&reading);
        async move {
            let floors = floors(&shared).await;
            floors.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
        }
    };
    let keep = shared.bus.keep_layout(remembered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("keeping the streams")
    });
}

/// States whether bus and database are there, for ever.
async fn watch(shared: &Shared) {
    let mut tick = tokio::time::interval(CHECK);
    loop {
        tick.tick().await;
        shared.health.set_ready("bus", shared.bus.check());
        let database = shared.store.schema_ready().await;
        let database = database.map_err(|error| error.to_string());
        shared.health.set_ready("database", database);
    }
}

/// Archives one unit whenever its lease is held; otherwise stands by.
async fn hold(shared: &Arc<Shared>, leases: &Leases, unit: &Unit, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        let lease = tokio::select! {
            lease = leases.acquire(&unit.key) => lease,
            () = shutdown.cancelled() => return,
        };
        let stop = CancellationToken::new();
        // A task each: the rows of one are handed to the database while those of another are.
        let mut following = JoinSet::new();
        for stream in unit.streams.iter().cloned() {
            let of = (stream, unit.partition);
            following.spawn(follow(Arc::clone(shared), of, stop.clone()));
        }
        if let Some(partition) = unit.partition {
            following.spawn(trim(Arc::clone(shared), partition, stop.clone()));
        }
        let asked = async {
            tokio::select! {
                () = lease.recalled() => {}
                () = shutdown.cancelled() => {}
            }
            stop.cancel();
            // What is being written ends by itself.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ended(&mut following) => {}
            () = asked => {}
            // A transaction that is cut off here either happened or did not; its cursor tells.
            () = lease.lost() => {}
        }
        following.shutdown().await;
        report::forget(&shared.health, unit);
        lease.release().await;
    }
}

/// Waits for all of them.
///
/// # Panics
/// When one does.
async fn ended(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
