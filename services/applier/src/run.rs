//! Starts the service and its tasks.

use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use nixfleet_bus::{Bus, Membership};
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_service::Context;
use nixfleet_store::{CoveredSequencesSource, Store};

use crate::config::Config;
use crate::schema::migrate;
use crate::turn_writer::TurnWriter;
use crate::worker::backoff::Backoff;
use crate::{last_seen, worker};

const WATCH_EVERY: Duration = Duration::from_secs(2);

pub async fn run(ctx: Context<Config>) -> anyhow::Result<()> {
    ctx.readiness.expect(&["bus", "database"]);
    let store = Store::connect(&ctx.config.database).context("opening the database")?;
    if !prepare_database(&ctx, &store).await? {
        return Ok(());
    }
    let client_name = format!("applier-{}", ctx.instance);
    let bus = tokio::select! {
        () = ctx.shutdown.cancelled() => return Ok(()),
        bus = Bus::connect(ctx.config.bus.clone(), &client_name) => {
            bus.context("connecting to the bus")?
        }
    };
    let covered = covered_source(&store, bus.names());
    let waited = tokio::select! {
        waited = bus.wait_for_layout(&covered) => waited.context("comparing the streams"),
        watched = watch_connections(&ctx, &bus, &store) => watched,
    };
    if waited.is_err() || ctx.shutdown.is_cancelled() {
        bus.close().await;
        return waited;
    }
    ctx.readiness.set_ready("bus", Ok(()));
    spawn(&ctx, &bus, &store);
    ctx.shutdown.cancelled().await;
    // Workers release their leases while the bus is connected.
    ctx.tasks.join(Duration::from_secs(10)).await;
    bus.close().await;
    store.close();
    Ok(())
}

fn spawn(ctx: &Context<Config>, bus: &Bus, store: &Store) {
    let member = Membership {
        service: "applier",
        instance: &ctx.instance,
        keys: &bus.partition_keys(),
        config: ctx.config.lease,
    };
    let leases = bus.leases(member, &ctx.shutdown);
    for partition in Partition::all(bus.partitions()) {
        let writer = TurnWriter {
            partition,
            bus: bus.clone(),
            store: store.clone(),
            config: ctx.config.turn.clone(),
        };
        let work = worker::run(
            writer,
            leases.clone(),
            ctx.readiness.clone(),
            ctx.shutdown.clone(),
        );
        ctx.tasks.spawn(format!("partition {partition}"), work);
    }
    let follow = bus.follow_layout(covered_source(store, bus.names()), ctx.shutdown.clone());
    ctx.tasks.spawn("layout", async {
        follow.await.context("comparing the streams")
    });
    let follow = last_seen::write_until_shutdown(bus.clone(), store.clone(), ctx.shutdown.clone());
    ctx.tasks.spawn("liveness", follow);
    let watched = (ctx.clone(), bus.clone(), store.clone());
    ctx.tasks.spawn("watch", async move {
        let (ctx, bus, store) = watched;
        watch_connections(&ctx, &bus, &store).await
    });
}

/// Migrates the database once it answers. False on shutdown before that.
async fn prepare_database(ctx: &Context<Config>, store: &Store) -> anyhow::Result<bool> {
    let mut backoff = Backoff::new(ctx.config.turn.retry_max());
    loop {
        match store.migrate().await {
            Ok(report) => {
                tracing::info!(applied = ?report.applied, "the schema is up to date");
                ctx.readiness.set_ready("database", Ok(()));
                return Ok(true);
            }
            Err(error) if error.retryable() => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                ctx.readiness.set_ready("database", Err(reason));
            }
            Err(error) => return Err(error).context("migrating the database"),
        }
        tokio::select! {
            () = ctx.shutdown.cancelled() => return Ok(false),
            () = backoff.sleep() => {}
        }
    }
}

fn covered_source(store: &Store, names: &Names) -> CoveredSequencesSource {
    let (store, names) = (store.clone(), names.clone());
    Box::new(move || {
        let (store, names) = (store.clone(), names.clone());
        async move { Ok(covered_sequences(&store, &names).await?) }.boxed()
    })
}

/// What tables and archive cover, for lost streams. Without leases, which are lost with the
/// streams, no worker runs, so a lost schema is created here.
async fn covered_sequences(store: &Store, names: &Names) -> anyhow::Result<Vec<(String, u64)>> {
    if let Err(error) = store.schema_ready().await {
        tracing::info!(error = %anyhow::Error::from(error), "the schema is missing; migrating");
        migrate(store).await?;
    }
    let covered = store.covered_sequences(names).await;
    covered.context("reading the cursors")
}

async fn watch_connections(ctx: &Context<Config>, bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let readiness = &ctx.readiness;
    loop {
        tokio::select! {
            () = ctx.shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        readiness.set_ready("bus", bus.check());
        let database = store.schema_ready().await;
        let database = database.map_err(|error| format!("{:#}", anyhow::Error::from(error)));
        readiness.set_ready("database", database);
    }
}
