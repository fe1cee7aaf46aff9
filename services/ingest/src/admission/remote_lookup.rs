//! What an event is about is not in the memory of this gateway: servers are asked, at a price for the host, so
//! that nothing an honest host may still have to say is refused for good.

use std::time::Duration;

use http::StatusCode;
use nixfleet_http::ApiError;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Hostname, RolloutId};
use nixfleet_store::Membership;
use tokio::time::Instant;

use crate::app_state::App;

/// Requests of the host's rate that a lookup costs on top: it takes reads of the bus or the database.
const LOOKUP_COST: usize = 10;
/// Time to follow the output log to the end that it had when a host asked.
const CATCH_UP: Duration = Duration::from_secs(2);
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);
/// When a host should come again while this gateway is behind, in seconds.
const RETRY_AFTER_SECONDS: u32 = 5;

/// A host, and the rollout that it reports about.
#[derive(Debug, Clone, Copy)]
pub struct ReportTarget<'a> {
    pub hostname: &'a Hostname,
    pub rollout_id: &'a RolloutId,
    pub partition: Partition,
}

/// Asks whether a rollout that is not known here was announced or opened.
///
/// # Errors
/// 404 `unknown-rollout` when it was not, or is known no more; 503 while this gateway may be behind.
pub async fn look_up_rollout(app: &App, target: ReportTarget<'_>) -> Result<(), ApiError> {
    charge(app, target.hostname)?;
    let ReportTarget {
        rollout_id,
        partition,
        ..
    } = target;
    if app.known_rollouts.followed_to(partition).is_none() {
        return Err(not_ready(
            "the rollouts of the partition are not loaded yet",
        ));
    }
    let unread = |error: &dyn std::fmt::Display| {
        tracing::debug!(%error, "a lookup was not answered");
        not_ready("it cannot be read whether the rollout was announced")
    };
    let store = app.releases.store();
    let was_announced = store.is_announced(rollout_id).await;
    if was_announced.map_err(|error| unread(&error))? {
        // Announced before it is opened, and opened before a host hears of it.
        let newest = store.current().await.map_err(|error| unread(&error))?;
        if newest.is_some_and(|(seq, _)| seq != app.releases.judged_seq()) {
            return Err(not_ready("a newer release is announced than is known here"));
        }
        let output = app.backends.bus.names().output_stream(partition);
        let log = app.backends.bus.log_usage_once(&output).await;
        let log = log.map_err(|reason| unread(&reason))?;
        if log.messages > 0 {
            follow_to(app, partition, log.last_seq).await?;
        }
        if app.known_rollouts.knows(partition, rollout_id) {
            return Err(not_ready("the rollout was opened just now"));
        }
    }
    let message = format!("{rollout_id} is neither announced nor open");
    Err(ApiError::refused(
        StatusCode::NOT_FOUND,
        "unknown-rollout",
        message,
    ))
}

/// Waits until the output log was followed up to a sequence.
async fn follow_to(app: &App, partition: Partition, seq: u64) -> Result<(), ApiError> {
    let deadline = Instant::now() + CATCH_UP;
    while app.known_rollouts.followed_to(partition) < Some(seq) {
        if Instant::now() >= deadline {
            return Err(not_ready("the output log is ahead of what is known here"));
        }
        tokio::time::sleep(CATCH_UP_PAUSE).await;
    }
    Ok(())
}

/// Asks whether a rollout that is known has a record of a host that the release does not have on its channel.
///
/// # Errors
/// 404 `unknown-host` when it has none; 503 when the rows do not have the rollout yet, or cannot be read.
pub async fn look_up_host(app: &App, target: ReportTarget<'_>) -> Result<(), ApiError> {
    charge(app, target.hostname)?;
    let ReportTarget {
        hostname,
        rollout_id,
        ..
    } = target;
    let found = app.backends.store.rollout_member(rollout_id, hostname);
    match found.await? {
        Membership::Member => Ok(()),
        Membership::NotMember => Err(unknown_host(hostname, rollout_id)),
        Membership::UnknownRollout => {
            Err(not_ready("the opening of the rollout is not applied yet"))
        }
    }
}

/// The refusal of a host that a rollout does not have.
pub fn unknown_host(hostname: &Hostname, rollout_id: &RolloutId) -> ApiError {
    let message = format!("{hostname} is not a host of {rollout_id}");
    ApiError::refused(StatusCode::NOT_FOUND, "unknown-host", message)
}

fn charge(app: &App, hostname: &Hostname) -> Result<(), ApiError> {
    match &app.access.rates {
        Some(rates) => rates.take(&hostname.as_str().into(), LOOKUP_COST),
        None => Ok(()),
    }
}

fn not_ready(why: &str) -> ApiError {
    ApiError::unavailable("not-ready", why, RETRY_AFTER_SECONDS)
}
