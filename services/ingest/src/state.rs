//! What the handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use futures::TryFutureExt as _;
use nixfleet_bus::{AppendError, Bus, InputPublisher};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ChannelName, Entry, EntryBody, Position};
use nixfleet_service::CancellationToken;
use nixfleet_store::Store;
use tokio::sync::Semaphore;

use crate::body::{BodyLimit, JsonBody};
use crate::clock::now;
use crate::config::Config;
use crate::dispatches::Dispatches;
use crate::error::ApiError;
use crate::log_room::LogRoom;
use crate::rates::Rates;
use crate::releases::Releases;
use crate::revocations::Revoked;

/// Granularity of the memory bound: a semaphore counts no more than `u32` permits.
const MEMORY_UNIT_BYTES: usize = 1024;

/// Everything a request may need.
pub struct App {
    /// The configuration.
    pub config: Arc<Config>,
    /// The bus.
    pub bus: Bus,
    /// The one publisher of this process.
    pub input: InputPublisher,
    /// Reads for people; agents' reports never wait for it.
    pub store: Store,
    /// Verified artifacts.
    pub releases: Releases,
    /// Queued dispatches.
    pub dispatches: Dispatches,
    /// Room in the logs.
    pub log_room: LogRoom,
    /// Refused certificates.
    pub revoked: Revoked,
    /// Room for requests.
    pub requests: Arc<Semaphore>,
    /// Room for dispatch requests that wait.
    pub polls: Arc<Semaphore>,
    /// How often each host may ask.
    pub rates: Rates,
    /// Room for bodies, in units of 1 KiB.
    pub memory: Arc<Semaphore>,
    /// Room for one pushed release at a time: verifying one is work.
    pub pushing: Arc<Semaphore>,
    /// The process is stopping.
    pub shutdown: CancellationToken,
}

impl App {
    /// The JSON body of a request, which takes room for its declared length, or for the limit when none
    /// is declared.
    ///
    /// # Errors
    /// 415 for another type, 503 when too many bodies are in memory.
    pub fn json_body(&self, request: Request, limit: BodyLimit) -> Result<JsonBody, ApiError> {
        JsonBody::of(request, limit, |bytes| {
            let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.memory).try_acquire_many_owned(units);
            room.map_err(|_| ApiError::unavailable("too-busy", "too many bodies are being read", 1))
        })
    }

    /// A semaphore that bounds `bytes` for [`App::json_body`].
    pub fn memory_bound(bytes: usize) -> Arc<Semaphore> {
        let units = (bytes / MEMORY_UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        Arc::new(Semaphore::new(units))
    }

    /// The partition of a channel.
    pub fn partition(&self, channel: &ChannelName) -> Partition {
        Partition::of(channel, self.bus.partitions())
    }

    /// Queues an entry for the log; its place once it is durable, of which [`not_appended`] tells what
    /// went wrong.
    pub fn append(
        &self,
        partition: Partition,
        body: EntryBody,
    ) -> impl Future<Output = Result<Position, AppendError>> + use<> {
        let mut entry = Entry::new(now(), body);
        entry.traceparent = nixfleet_service::trace::current_traceparent();
        let appended = self.input.append(partition, entry);
        appended.inspect_ok(move |at| {
            tracing::debug!(%partition, seq = at.seq, index = at.index, "appended");
        })
    }

    /// Longest time a dispatch request is held open.
    pub fn poll_max(&self) -> Duration {
        Duration::from_secs(self.config.http.poll_max_seconds)
    }
}

/// Why an entry is not in the log: 503 when the log is full or away, 413 when no frame can hold the entry.
pub fn not_appended(error: &AppendError) -> ApiError {
    match error {
        AppendError::Full(_) => {
            tracing::warn!(%error, "an entry was refused");
            ApiError::unavailable("log-full", error.to_string(), 30)
        }
        AppendError::Unavailable(_) => {
            tracing::debug!(%error, "an entry was refused");
            ApiError::unavailable("log-unavailable", error.to_string(), 2)
        }
        AppendError::TooLarge { .. } => ApiError::refused(
            http::StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            error.to_string(),
        ),
    }
}
