//! The state of the cluster: members, owners, epochs, lags. A part that cannot be read is absent, never guessed.

mod log_sources;
mod response;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use futures::{StreamExt as _, stream};
use nixfleet_bus::lease::RecordView;
use nixfleet_bus::{LOG_PROBLEM_PERCENT, LogUsage};
use nixfleet_http::{ApiError, now};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;
use nixfleet_store::ArchiveMark;
use tokio::time::{Instant, timeout_at};

use self::response::{Announcements, Archive, Cluster, Log, Membership};
use crate::app_state::App;

/// Reads of the bus under way at once: a fleet of many partitions must not crowd out its entries.
const READS_AT_ONCE: usize = 16;
/// Time for all reads together; a read without an answer by then is unknown.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/cluster", get(cluster))
}

/// Two reads of the lease bucket, three per partition, three for the shared streams, two of the
/// database. The messages of a sample for each input log that fills.
async fn cluster(State(app): State<Arc<App>>) -> Result<Json<Cluster>, ApiError> {
    let records: Vec<RecordView> = app
        .backends
        .bus
        .lease_records()
        .await
        .map_err(|error| ApiError::unavailable("leases-unavailable", error.to_string(), 2))?;
    let deadline = Instant::now() + READ_TIMEOUT;
    let partitions = Partition::all(app.backends.bus.partitions());
    let logs = stream::iter(partitions.map(|partition| log(&app, partition, deadline)));
    let logs: Vec<Log> = logs.buffered(READS_AT_ONCE).collect().await;
    let names = app.backends.bus.names();
    let mut shared = Vec::new();
    for name in [names.manifest_stream(), names.dead_stream()] {
        shared.push((name.clone(), fill(&app, &name, deadline).await));
    }
    let cursors = known(deadline, app.backends.store.cursors()).await;
    let cursors: Option<BTreeMap<Partition, Cursor>> = cursors.map(|all| all.into_iter().collect());
    let archived: Option<BTreeMap<String, ArchiveMark>> =
        known(deadline, app.backends.store.archive_cursors()).await;
    let membership = Membership::new(now(), &app.backends.bus.partition_keys(), records);
    let archive = Archive { archived, shared };
    let announcements = Announcements {
        newest: known(deadline, app.releases.store().newest()).await,
        refusal: app.releases.refusal(),
    };
    let announced = membership.with_announcements(announcements);
    Ok(Json(announced.cluster(logs, cursors, archive)))
}

async fn log(app: &App, partition: Partition, deadline: Instant) -> Log {
    let names = app.backends.bus.names();
    let (input, output) = (
        names.input_stream(partition),
        names.output_stream(partition),
    );
    let reader = app.backends.bus.output(partition);
    let (input_fill, output_fill, last) = tokio::join!(
        fill(app, &input, deadline),
        fill(app, &output, deadline),
        known(deadline, reader.last()),
    );
    let sources = match &input_fill {
        Some(fill) if fill.percent() >= LOG_PROBLEM_PERCENT => {
            log_sources::sources(&app.backends.bus, (&input, fill), deadline).await
        }
        Some(_) | None => Vec::new(),
    };
    Log {
        partition,
        sources,
        input: (input, input_fill),
        output: (output, output_fill),
        last,
    }
}

async fn fill(app: &App, stream: &str, deadline: Instant) -> Option<LogUsage> {
    known(deadline, app.backends.bus.log_usage(stream)).await
}

/// What was read in time; a failure is for the log of the service, the operator sees "unknown".
async fn known<T, E: std::error::Error>(
    deadline: Instant,
    read: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    match timeout_at(deadline, read).await {
        Ok(Ok(value)) => Some(value),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a part of the cluster's state cannot be read");
            None
        }
        Err(_) => None,
    }
}
