//! Bus and database as both gateways use them: the input log, the streams, their readiness.

use std::time::Duration;

use nixfleet_bus::{AppendError, Bus, InputPublisher, LayoutError};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{ChannelName, Entry, EntryBody, Position, Timestamp};
use nixfleet_service::{CancellationToken, Readiness, trace_context};
use nixfleet_store::Store;

use crate::problem::ApiError;

const LAYOUT_PART: &str = "layout";
const CLOCK_PART: &str = "clock";
/// How often the database and the bus are asked whether they are there.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Bus and database of a gateway.
#[derive(Clone)]
pub struct Backends {
    /// The bus.
    pub bus: Bus,
    /// The database, for reads alone.
    pub store: Store,
}

impl Backends {
    /// Parts of a readiness report that [`Backends::report_readiness`] states.
    pub const PARTS: [&str; 4] = ["bus", CLOCK_PART, "database", LAYOUT_PART];

    /// Over connections that are open.
    pub fn new(bus: Bus, store: Store) -> Self {
        Self { bus, store }
    }

    /// The partition of a channel.
    pub fn partition(&self, channel: &ChannelName) -> Partition {
        Partition::of(channel, self.bus.partitions())
    }

    /// The time at which a request arrived.
    ///
    /// # Errors
    /// 503 while the clock of this gateway is off: what it says of the time would be wrong.
    pub fn received_at(&self) -> Result<Timestamp, ApiError> {
        match self.bus.check_clock() {
            Ok(()) => Ok(self.bus.now()),
            Err(reason) => Err(clock_off(reason)),
        }
    }

    /// Compares the streams with the configuration, and with what tables and archive cover.
    ///
    /// # Errors
    /// When the fleet was set up otherwise: going on would put entries into wrong partitions.
    pub fn follow_layout(
        &self,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), LayoutError>> + Send + use<> {
        let covered = self.store.read_covered_sequences(self.bus.names());
        self.bus.follow_layout(covered, stop)
    }

    /// States every two seconds, until stopped, whether bus, streams and database are there, the clock is right,
    /// and whatever `more` states.
    pub async fn report_readiness(
        &self,
        readiness: Readiness,
        stop: CancellationToken,
        more: impl Fn(&Readiness),
    ) {
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            readiness.set_ready("bus", self.bus.check());
            readiness.set_ready(LAYOUT_PART, self.bus.check_layout());
            readiness.set_ready(CLOCK_PART, self.bus.check_clock());
            let database = self.store.schema_ready().await;
            readiness.set_ready("database", database.map_err(|error| error.to_string()));
            more(&readiness);
        }
    }
}

/// The input logs, for a gateway whose clients may append whatever its routes allow them.
pub struct EntryLog(InputPublisher);

impl EntryLog {
    /// The one publisher of this process.
    pub fn new(bus: &Bus) -> Self {
        Self(bus.input())
    }

    /// Queues an entry for the log; gives its position once the entry is durable. [`not_appended`] turns the
    /// error into an answer.
    pub fn append(
        &self,
        partition: Partition,
        body: EntryBody,
    ) -> impl Future<Output = Result<Position, AppendError>> + use<> {
        self.append_entry(partition, Entry::new(self.0.now(), body))
    }

    /// As [`EntryLog::append`], with the time of the entry.
    pub fn append_entry(
        &self,
        partition: Partition,
        mut entry: Entry,
    ) -> impl Future<Output = Result<Position, AppendError>> + use<> {
        entry.traceparent = trace_context::current_traceparent();
        let appended = self.0.append(partition, entry);
        async move {
            let at = appended.await?;
            tracing::debug!(%partition, seq = at.seq, index = at.index, "appended");
            Ok(at)
        }
    }
}

fn clock_off(reason: String) -> ApiError {
    ApiError::unavailable("clock-off", reason, 5)
}

/// The answer when an entry is not in the log: 503 when the log is full or away, or when the clock of this
/// gateway is off, 413 when no frame can hold the entry.
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
        AppendError::Clock(_) => {
            tracing::warn!(%error, "an entry was refused");
            clock_off(error.to_string())
        }
        AppendError::TooLarge { .. } => ApiError::refused(
            http::StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            error.to_string(),
        ),
    }
}
