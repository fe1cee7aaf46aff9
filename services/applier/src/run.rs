//! Starting the service and everything that runs in it.

use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Membership, SequenceFloors};
use nixfleet_proto::subject::{Names, Partition};
use nixfleet_service::{CancellationToken, Context, Readiness};
use nixfleet_store::Store;

use crate::config::Config;
use crate::database::{floors, migrate};
use crate::retry::Pauses;
use crate::turn::Turns;
use crate::{liveness, partition};

/// How often readiness is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// The work of the process.
pub async fn run(ctx: Context<Config>) -> anyhow::Result<()> {
    ctx.readiness.expect(&["bus", "database"]);
    describe_metrics();
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
    let floors = floors(&store, bus.names())
        .await
        .context("reading the cursors")?;
    bus.ensure_layout(&floors)
        .await
        .context("creating the streams")?;
    ctx.readiness.set_ready("bus", Ok(()));
    spawn(&ctx, &bus, &store);
    ctx.shutdown.cancelled().await;
    // Partitions give their leases back themselves, while the bus is still there.
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
        let turns = Turns {
            partition,
            bus: bus.clone(),
            store: store.clone(),
            config: ctx.config.turn.clone(),
        };
        let work = partition::run(
            turns,
            leases.clone(),
            ctx.readiness.clone(),
            ctx.shutdown.clone(),
        );
        ctx.tasks.spawn(format!("partition {partition}"), work);
    }
    let (reading, names) = (store.clone(), bus.names().clone());
    let remembered = move || {
        let (store, names) = (reading.clone(), names.clone());
        async move {
            let floors = remembered(&store, &names).await;
            floors.map_err(|error| format!("{error:#}"))
        }
    };
    let keep = bus.maintain_layout(remembered, ctx.shutdown.clone());
    ctx.tasks.spawn("layout", async {
        keep.await.context("keeping the streams")
    });
    let follow = liveness::follow(bus.clone(), store.clone(), ctx.shutdown.clone());
    ctx.tasks.spawn("liveness", follow);
    let watch = watch(
        bus.clone(),
        store.clone(),
        ctx.readiness.clone(),
        ctx.shutdown.clone(),
    );
    ctx.tasks.spawn("watch", watch);
}

/// Migrates as soon as the database answers. False when the process shall stop before.
async fn prepare_database(ctx: &Context<Config>, store: &Store) -> anyhow::Result<bool> {
    let mut pauses = Pauses::new(ctx.config.turn.retry_max());
    loop {
        match store.migrate().await {
            Ok(report) => {
                tracing::info!(applied = ?report.applied, "the schema is current");
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
            () = pauses.sleep() => {}
        }
    }
}

/// The positions the tables remember, for streams that are gone while the process runs. Nobody works without leases, which are gone
/// with them, so a schema that is gone as well is made here.
async fn remembered(store: &Store, names: &Names) -> anyhow::Result<SequenceFloors> {
    if let Err(error) = store.schema_ready().await {
        tracing::info!(error = %anyhow::Error::from(error), "making sure of the schema");
        migrate(store).await?;
    }
    floors(store, names).await.context("reading the cursors")
}

async fn watch(
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

fn describe_metrics() {
    metrics::describe_gauge!(
        "nixfleet_partition_lag_entries",
        "Output frames the applier has not applied yet"
    );
    metrics::describe_counter!("nixfleet_rows_written_total", "Rows written by turns");
    metrics::describe_counter!(
        "nixfleet_orphan_rows_total",
        "Changes passed over because the opening of their rollout is not in the log"
    );
    metrics::describe_counter!(
        "nixfleet_liveness_reports_total",
        "Last-seen times by what became of them"
    );
}
