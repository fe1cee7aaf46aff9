//! Who archives what: one lease per partition and one for the shared streams, each stream followed
//! by a task of its own while the lease is held.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use nixfleet_bus::{Bus, Leases, Membership};
use nixfleet_service::{CancellationToken, Context};
use nixfleet_store::Store;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::follow::follow;
use crate::layout::{maintain_layout, prepare};
use crate::report;
use crate::shared::Shared;
use crate::stream::{Unit, units};
use crate::trim::trim;

/// Name of the service in leases and metrics.
const SERVICE: &str = "eventlog";
/// How often bus and database are asked for their state.
const CHECK: Duration = Duration::from_secs(2);

/// Runs the archive.
///
/// # Errors
/// When the bus or the database cannot be used at start.
pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = Arc::clone(&context.config);
    context.readiness.expect(&["bus", "database"]);
    let store = Store::connect(&config.database).context("opening the database")?;
    let name = format!("{SERVICE}/{}", context.instance);
    let bus = tokio::select! {
        bus = Bus::connect(config.bus.clone(), &name) => bus.context("connecting to the bus")?,
        () = context.shutdown.cancelled() => return Ok(()),
    };
    let shared = Arc::new(Shared {
        readiness: context.readiness.clone(),
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
    maintain_layout(shared, context);
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

/// States whether bus and database are there, for ever.
async fn watch(shared: &Shared) {
    let mut tick = tokio::time::interval(CHECK);
    loop {
        tick.tick().await;
        shared.readiness.set_ready("bus", shared.bus.check());
        let database = shared.store.schema_ready().await;
        let database = database.map_err(|error| error.to_string());
        shared.readiness.set_ready("database", database);
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
        report::forget(&shared.readiness, unit);
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
