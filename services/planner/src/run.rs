//! Runs leaderships one after the other: stand by, lead, start over.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nixfleet_bus::{Bus, Lease, Leases, Membership};
use nixfleet_service::{CancellationToken, Context, Readiness};
use nixfleet_store::Store;

use crate::config::Config;
use crate::leadership_loop::{Dependencies, LeadershipLoop};

const LEADER: &str = "leader";
/// Pause after a failed leadership: the same fault would end the next one.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Time without the lease after which this instance counts as a standby: another one leads.
const STANDBY_AFTER: Duration = Duration::from_secs(5);
/// How often a standby whose clock is off looks at it again.
const CLOCK_EVERY: Duration = Duration::from_millis(200);
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// Runs the planner.
///
/// # Errors
/// When the bus cannot be reached at start or the database configuration is wrong.
pub async fn run(context: Context<Config>) -> anyhow::Result<()> {
    let config = &context.config;
    context.readiness.expect(&["bus", "clock", "planner"]);
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
    let deps = Dependencies {
        bus: &bus,
        store: &store,
        config,
        readiness: &context.readiness,
        floor: Arc::default(),
    };
    // A standby is ready, even while it loads the view.
    context.readiness.set_ready("planner", Ok(()));
    lead_until_shutdown(&context, &deps).await;
    bus.close().await;
    Ok(())
}

fn maintain_layout(context: &Context<Config>, bus: &Bus, store: &Store) {
    let covered = store.read_covered_sequences(bus.names());
    let keep = bus.maintain_layout(covered, context.shutdown.clone());
    context.tasks.spawn("layout", async {
        keep.await.context("maintaining the streams")
    });
}

async fn lead_until_shutdown(context: &Context<Config>, deps: &Dependencies<'_>) {
    let member = Membership {
        service: "planner",
        instance: &context.instance,
        keys: &[LEADER.to_owned()],
        config: deps.config.lease,
    };
    let leases = deps.bus.leases(member, &context.shutdown);
    let mut last_failure = None;
    while !context.shutdown.is_cancelled() {
        let Err(error) = run_leadership(context, deps, &leases).await else {
            last_failure = None;
            continue;
        };
        let reason = format!("{error:#}");
        if last_failure.as_ref() != Some(&reason) {
            tracing::warn!(error = reason, "the leadership ended; starting over");
        }
        let not_ready = Err(reason.clone());
        context.readiness.set_ready("planner", not_ready);
        last_failure = Some(reason);
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(FAILED_PAUSE) => {}
        }
    }
}

/// One leadership: loads the view, stands by until the lease is acquired, leads until it is lost.
async fn run_leadership(
    context: &Context<Config>,
    deps: &Dependencies<'_>,
    leases: &Leases,
) -> anyhow::Result<()> {
    let mut leadership = tokio::select! {
        () = context.shutdown.cancelled() => return Ok(()),
        leadership = LeadershipLoop::load(deps) => leadership?,
    };
    let ended = match leadership
        .stand_by(acquire(context, deps.bus, leases))
        .await
    {
        Err(error) => Err(error),
        Ok(None) => Ok(()),
        Ok(Some(lease)) => {
            let ended = lead(context, &mut leadership, &lease).await;
            match &ended {
                Ok(()) => lease.release().await,
                // Another instance may succeed.
                Err(_) => lease.give_up().await,
            }
            ended
        }
    };
    leadership.join().await;
    ended
}

/// Waits for a right clock and then for the lease; `None` on shutdown.
async fn acquire(context: &Context<Config>, bus: &Bus, leases: &Leases) -> Option<Lease> {
    let waits = async {
        tokio::time::sleep(STANDBY_AFTER).await;
        context.readiness.set_ready("planner", Ok(()));
        std::future::pending::<Infallible>().await
    };
    let lease = async {
        while bus.check_clock().is_err() {
            tokio::time::sleep(CLOCK_EVERY).await;
        }
        leases.acquire(LEADER).await
    };
    tokio::select! {
        () = context.shutdown.cancelled() => None,
        lease = lease => Some(lease),
        never = waits => match never {},
    }
}

/// Leads until the lease is recalled or lost, the process stops, or the leadership fails.
async fn lead(
    context: &Context<Config>,
    leadership: &mut LeadershipLoop<'_>,
    lease: &Lease,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut leading = std::pin::pin!(leadership.lead(lease, &stop));
    tokio::select! {
        ended = &mut leading => return ended,
        () = context.shutdown.cancelled() => {}
        () = lease.recalled() => {}
    }
    // Stopped and awaited, not dropped: tasks are joined, and the current plan is finished.
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
        readiness.set_ready("clock", bus.check_clock());
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(HEALTH_EVERY) => {}
        }
    }
}
