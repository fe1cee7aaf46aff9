//! Standing by and leading, over and over.

use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Lease, Membership};
use nixfleet_service::{CancellationToken, Context, Health};
use nixfleet_store::Store;

use crate::config::Config;
use crate::load;
use crate::term::{self, Parts};

/// The one key of the planner's leases.
const LEADER: &str = "leader";
/// Pause after a term that failed: the same fault would fail the next one.
const PAUSE: Duration = Duration::from_secs(1);
/// Wait for the lease after which this instance counts as a standby.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the connection to the bus is looked at for readiness.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Runs the planner.
///
/// # Errors
/// When the bus cannot be reached at start or the database configuration is wrong.
pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = &context.config;
    context.health.expect(&["bus", "planner"]);
    let name = format!("planner-{}", context.instance);
    let bus = Bus::connect(config.bus.clone(), &name)
        .await
        .context("connecting to the bus")?;
    let store = Store::connect(&config.database).context("configuring the database")?;
    context.tasks.spawn(
        "health",
        watch_bus(
            bus.clone(),
            context.health.clone(),
            context.shutdown.clone(),
        ),
    );
    keep_layout(&context, &bus, &store);
    let parts = Parts {
        bus: &bus,
        store: &store,
        config,
        health: &context.health,
    };
    // A standby is ready: it has nothing to do until the leader is gone.
    context.health.set_ready("planner", Ok(()));
    lead_on(&context, &parts).await;
    bus.close().await;
    Ok(())
}

/// Brings back streams that are gone, for as long as the process works.
fn keep_layout(context: &Context<Config>, bus: &Bus, store: &Store) {
    let (store, names) = (store.clone(), bus.names().clone());
    let remembered = move || {
        let (store, names) = (store.clone(), names.clone());
        async move {
            let floors = load::remembered(&store, &names).await;
            floors.map_err(|error| format!("{error:#}"))
        }
    };
    let keep = bus.keep_layout(remembered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("keeping the streams")
    });
}

async fn lead_on(context: &Context<Config>, parts: &Parts<'_>) {
    let member = Membership {
        service: "planner",
        instance: &context.instance,
        keys: &[LEADER.to_owned()],
        config: parts.config.lease,
    };
    let leases = parts.bus.leases(member, &context.shutdown);
    let mut last_failure = None;
    while !context.shutdown.is_cancelled() {
        let acquired = tokio::select! {
            () = context.shutdown.cancelled() => return,
            lease = leases.acquire(LEADER) => Some(lease),
            // Whoever waits this long stands by for a leader that works.
            () = tokio::time::sleep(PATIENCE), if last_failure.is_some() => None,
        };
        let Some(lease) = acquired else {
            context.health.set_ready("planner", Ok(()));
            last_failure = None;
            continue;
        };
        let Err(error) = lead(context, parts, &lease).await else {
            lease.release().await;
            continue;
        };
        // What fails here may succeed elsewhere.
        lease.give_up().await;
        let reason = format!("{error:#}");
        if last_failure.as_ref() != Some(&reason) {
            tracing::warn!(error = reason, "term ended, starting over");
        }
        let not_ready = Err(reason.clone());
        context.health.set_ready("planner", not_ready);
        last_failure = Some(reason);
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Leads until the lease is asked back or lost, the process shall stop, or the term fails.
async fn lead(context: &Context<Config>, parts: &Parts<'_>, lease: &Lease) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut term = std::pin::pin!(term::lead(parts, lease, &stop));
    tokio::select! {
        ended = &mut term => return ended,
        () = context.shutdown.cancelled() => {}
        () = lease.recalled() => {}
    }
    // Asked to end and waited for, not dropped: its tasks are joined, and the plan that is being
    // appended lands.
    stop.cancel();
    term.await
}

async fn watch_bus(bus: Bus, health: Health, shutdown: CancellationToken) -> anyhow::Result<()> {
    loop {
        health.set_ready("bus", bus.check());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(HEALTH_EVERY) => {}
        }
    }
}
