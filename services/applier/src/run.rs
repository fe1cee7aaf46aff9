//! Starts the service and its tasks.

use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use nixfleet_bus::{Bus, Membership};
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_service::{CancellationToken, Context, Readiness};
use nixfleet_store::Store;

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
    let covered = store
        .covered_sequences(bus.names())
        .await
        .context("reading the cursors")?;
    bus.ensure_layout(&covered.into_iter().collect())
        .await
        .context("creating the streams")?;
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
    let (reading, names) = (store.clone(), bus.names().clone());
    let covered = move || {
        let (store, names) = (reading.clone(), names.clone());
        async move { Ok(covered_sequences(&store, &names).await?) }.boxed()
    };
    let keep = bus.maintain_layout(Box::new(covered), ctx.shutdown.clone());
    ctx.tasks.spawn("layout", async {
        keep.await.context("maintaining the streams")
    });
    let follow = last_seen::write_until_shutdown(bus.clone(), store.clone(), ctx.shutdown.clone());
    ctx.tasks.spawn("liveness", follow);
    let watch = watch_connections(
        bus.clone(),
        store.clone(),
        ctx.readiness.clone(),
        ctx.shutdown.clone(),
    );
    ctx.tasks.spawn("watch", watch);
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

async fn watch_connections(
    bus: Bus,
    store: Store,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        readiness.set_ready("bus", bus.check());
        let database = store.schema_ready().await;
        let database = database.map_err(|error| format!("{:#}", anyhow::Error::from(error)));
        readiness.set_ready("database", database);
    }
}
