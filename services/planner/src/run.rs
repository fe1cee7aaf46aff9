//! Standing by and leading, over and over.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Lease, Leases, Membership};
use nixfleet_service::{CancellationToken, Context, Readiness};
use nixfleet_store::Store;

use crate::config::Config;
use crate::load;
use crate::term::{Parts, Term};

/// The one key of the planner's leases.
const LEADER: &str = "leader";
/// Pause after a term that failed: the same fault would fail the next one.
const PAUSE: Duration = Duration::from_secs(1);
/// Wait for the lease after which this instance counts as a standby: the leader works.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the connection to the bus is looked at for readiness.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Runs the planner.
///
/// # Errors
/// When the bus cannot be reached at start or the database configuration is wrong.
pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = &context.config;
    context.readiness.expect(&["bus", "planner"]);
    let name = format!("planner-{}", context.instance);
    let bus = Bus::connect(config.bus.clone(), &name)
        .await
        .context("connecting to the bus")?;
    let store = Store::connect(&config.database).context("configuring the database")?;
    context.tasks.spawn(
        "health",
        watch_bus(
            bus.clone(),
            context.readiness.clone(),
            context.shutdown.clone(),
        ),
    );
    maintain_layout(&context, &bus, &store);
    let parts = Parts {
        bus: &bus,
        store: &store,
        config,
        readiness: &context.readiness,
    };
    // Whoever stands by is ready, however long the view takes.
    context.readiness.set_ready("planner", Ok(()));
    lead_on(&context, &parts).await;
    bus.close().await;
    Ok(())
}

/// Brings back streams that are gone, for as long as the process works.
fn maintain_layout(context: &Context<Config>, bus: &Bus, store: &Store) {
    let (store, names) = (store.clone(), bus.names().clone());
    let remembered = move || {
        let (store, names) = (store.clone(), names.clone());
        async move {
            let floors = load::remembered(&store, &names).await;
            floors.map_err(|error| format!("{error:#}"))
        }
    };
    let keep = bus.maintain_layout(remembered, context.shutdown.clone());
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
        let Err(error) = serve(context, parts, &leases).await else {
            last_failure = None;
            continue;
        };
        let reason = format!("{error:#}");
        if last_failure.as_ref() != Some(&reason) {
            tracing::warn!(error = reason, "term ended, starting over");
        }
        let not_ready = Err(reason.clone());
        context.readiness.set_ready("planner", not_ready);
        last_failure = Some(reason);
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// One term: loads, stands by until the lease is there, leads until it is gone.
async fn serve(
    context: &Context<Config>,
    parts: &Parts<'_>,
    leases: &Leases,
) -> anyhow::Result<()> {
    let mut term = tokio::select! {
        () = context.shutdown.cancelled() => return Ok(()),
        term = Term::load(parts) => term?,
    };
    let ended = match term.stand_by(acquire(context, leases)).await {
        Err(error) => Err(error),
        Ok(None) => Ok(()),
        Ok(Some(lease)) => {
            let ended = lead(context, &mut term, &lease).await;
            match &ended {
                Ok(()) => lease.release().await,
                // What fails here may succeed elsewhere.
                Err(_) => lease.give_up().await,
            }
            ended
        }
    };
    term.end().await;
    ended
}

/// Waits for the lease; `None` when the process shall stop.
async fn acquire(context: &Context<Config>, leases: &Leases) -> Option<Lease> {
    let waits = async {
        tokio::time::sleep(PATIENCE).await;
        context.readiness.set_ready("planner", Ok(()));
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        () = context.shutdown.cancelled() => None,
        lease = leases.acquire(LEADER) => Some(lease),
        never = waits => match never {},
    }
}

/// Leads until the lease is asked back or lost, the process shall stop, or the term fails.
async fn lead(context: &Context<Config>, term: &mut Term<'_>, lease: &Lease) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut leading = std::pin::pin!(term.lead(lease, &stop));
    tokio::select! {
        ended = &mut leading => return ended,
        () = context.shutdown.cancelled() => {}
        () = lease.recalled() => {}
    }
    // Asked to end and waited for, not dropped: its tasks are joined, and the plan that is being
    // appended lands.
    stop.cancel();
    leading.await
}

async fn watch_bus(
    bus: Bus,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        readiness.set_ready("bus", bus.check());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(HEALTH_EVERY) => {}
        }
    }
}
