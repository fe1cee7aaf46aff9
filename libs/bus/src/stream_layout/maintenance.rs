//! Restoring the layout while services run. Leases, logs and consumers are gone when the server lost its
//! data; a running planner creates them again, the other services wait for that.

use std::error::Error;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use nixfleet_proto::Timestamp;
use tokio_util::sync::CancellationToken;

use super::desired_streams;
use super::ensure::{LayoutDuty, LayoutError, with_causes};
use crate::Bus;
use crate::message::StreamIdentity;
use crate::reader::leader_reads::{ReadFailure, stream_info};
use crate::stream_layout::sequence_floors::SequenceFloors;

/// Interval of the layout checks; a new connection is checked at once.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const CONCURRENT_REQUESTS: usize = 8;

/// Reads the last sequence of each stream that tables and archive cover now.
pub type FloorsSource = Box<
    dyn Fn() -> BoxFuture<'static, Result<Vec<(String, u64)>, Box<dyn Error + Send + Sync>>>
        + Send
        + Sync,
>;

#[derive(Debug, PartialEq, Eq)]
enum LayoutState {
    Intact,
    /// A stream is missing or was replaced.
    Broken(String),
    Unknown(String),
}

impl Bus {
    /// Maintains the layout until `stop`: creates missing streams above the positions that `floors_source`
    /// reads. Only planners may. Nothing is created while `floors_source` fails. Otherwise as
    /// [`Bus::follow_layout`].
    ///
    /// # Errors
    /// When the bus has another fleet than the configured one.
    pub fn maintain_layout(
        &self,
        floors_source: FloorsSource,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), LayoutError>> + Send + use<> {
        self.keep_layout(LayoutDuty::Create, floors_source, stop)
    }

    /// Compares the streams until `stop` with the configuration and with the positions that `floors_source`
    /// reads. After every new connection nothing that this process appends counts as durable before the
    /// streams are verified. Verification is required from the call on, not from the first poll.
    ///
    /// # Errors
    /// When the bus has another fleet than the configured one.
    pub fn follow_layout(
        &self,
        floors_source: FloorsSource,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), LayoutError>> + Send + use<> {
        self.keep_layout(LayoutDuty::Compare, floors_source, stop)
    }

    /// Waits until the planner has created the streams and they fit. The reason for waiting is that of
    /// [`Bus::check_layout`].
    ///
    /// # Errors
    /// When the bus has another fleet than the configured one.
    pub async fn wait_for_layout(&self, floors_source: &FloorsSource) -> Result<(), LayoutError> {
        loop {
            let connection = *self.connections().publish_made.borrow();
            let duty = LayoutDuty::Compare;
            if self
                .restore(duty, "the streams are not verified yet", floors_source)
                .await?
            {
                self.known_streams().verify(connection);
                return Ok(());
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn keep_layout(
        &self,
        duty: LayoutDuty,
        floors_source: FloorsSource,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), LayoutError>> + Send + use<> {
        self.known_streams().require_verification();
        let bus = self.clone();
        async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                ended = bus.maintain(duty, &floors_source) => ended,
            }
        }
    }

    /// Whether the streams are those of this fleet, according to the last check of
    /// [`Bus::maintain_layout`].
    ///
    /// # Errors
    /// Names the fault, and the remedy where an operator has to act.
    pub fn check_layout(&self) -> Result<(), String> {
        self.known_streams().check()
    }

    async fn maintain(
        &self,
        duty: LayoutDuty,
        floors_source: &FloorsSource,
    ) -> Result<(), LayoutError> {
        let mut made = self.connections().publish_made.clone();
        let mut verified = 0;
        loop {
            let connection = *made.borrow_and_update();
            let is_new = connection != verified || self.known_streams().check().is_err();
            let mut settle = |is_settled: bool| {
                if !is_settled {
                    return RETRY_PAUSE;
                }
                self.known_streams().verify(connection);
                verified = connection;
                CHECK_INTERVAL
            };
            let pause = match self.inspect(is_new).await {
                LayoutState::Intact if !is_new => CHECK_INTERVAL,
                LayoutState::Intact => settle(self.compare_with_tables(duty, floors_source).await?),
                LayoutState::Unknown(reason) => {
                    tracing::debug!(reason, "the streams cannot be checked");
                    RETRY_PAUSE
                }
                LayoutState::Broken(what) => {
                    settle(self.restore(duty, &what, floors_source).await?)
                }
            };
            tokio::select! {
                // The sender lives as long as the connection; when it ends, the bus ends.
                _ = made.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Checks all streams after a new connection, otherwise the first and the last of the layout.
    async fn inspect(&self, all: bool) -> LayoutState {
        let names = self.names();
        let leases = format!("KV_{}", names.lease_bucket());
        let mut streams = vec![leases.clone(), names.dead_stream()];
        if all {
            let buckets = [names.manifest_bucket(), names.checkpoint_bucket()];
            streams.extend(buckets.map(|bucket| format!("OBJ_{bucket}")));
            let desired = desired_streams::streams(self.config(), names);
            streams.extend(desired.into_iter().map(|desired| desired.name));
        }
        let context = &self.connections().consume_js;
        let requests = streams.into_iter().map(|stream| async {
            let info = stream_info(context, &stream).await;
            (stream, info)
        });
        let mut answers = futures::stream::iter(requests).buffer_unordered(CONCURRENT_REQUESTS);
        while let Some((stream, info)) = answers.next().await {
            match info {
                Ok(info) => {
                    let is_log = !stream.starts_with("KV_") && !stream.starts_with("OBJ_");
                    let identity = StreamIdentity::new(&info);
                    if is_log && !self.known_streams().is_known(&stream, identity) {
                        return LayoutState::Broken(describe(&stream, identity.created));
                    }
                }
                Err(ReadFailure::Missing) => {
                    return LayoutState::Broken(format!("{stream} is gone"));
                }
                Err(ReadFailure::Retry(reason)) => return LayoutState::Unknown(reason),
            }
        }
        LayoutState::Intact
    }

    /// Creates missing streams, or adopts those that a planner created; false when it has to wait.
    async fn restore(
        &self,
        duty: LayoutDuty,
        what: &str,
        floors_source: &FloorsSource,
    ) -> Result<bool, LayoutError> {
        let floors = match read_floors(floors_source).await {
            Ok(floors) => floors,
            Err(reason) => {
                self.report_fault(format!(
                    "{what}, and the position of the tables is unknown: {reason}"
                ));
                return Ok(false);
            }
        };
        let restored = self.ensure_above(duty, &floors).await?;
        if restored {
            tracing::info!(what, "the streams are those of the tables");
        }
        Ok(restored)
    }

    /// Compares streams that this process knows with the tables after a new connection: the tables may
    /// cover more than this process ever saw. False when the logs are behind them. Without the tables,
    /// the streams are as good as this process knows.
    async fn compare_with_tables(
        &self,
        duty: LayoutDuty,
        floors_source: &FloorsSource,
    ) -> Result<bool, LayoutError> {
        match read_floors(floors_source).await {
            Ok(floors) => self.ensure_above(duty, &floors).await,
            Err(reason) => {
                tracing::debug!(reason, "the streams are not compared with the tables");
                Ok(true)
            }
        }
    }

    /// Creates or adopts the streams above these positions; false when they are below, missing, or a server
    /// does not answer, which is reported.
    async fn ensure_above(
        &self,
        duty: LayoutDuty,
        floors: &SequenceFloors,
    ) -> Result<bool, LayoutError> {
        match self.set_up(duty, floors).await {
            Ok(()) => Ok(true),
            Err(
                error @ (LayoutError::Regressed { .. }
                | LayoutError::Missing { .. }
                | LayoutError::Unavailable { .. }),
            ) => {
                self.report_fault(error.to_string());
                Ok(false)
            }
            Err(
                error @ (LayoutError::Mismatch { .. }
                | LayoutError::Conflict { .. }
                | LayoutError::Malformed(_)),
            ) => Err(error),
        }
    }

    /// Records a fault, and logs it once.
    fn report_fault(&self, fault: String) {
        if self.known_streams().check().as_ref() != Err(&fault) {
            tracing::warn!(fault, "appending is stopped");
        }
        self.known_streams().fail(fault);
    }
}

async fn read_floors(source: &FloorsSource) -> Result<SequenceFloors, String> {
    let sequences = source().await.map_err(|error| with_causes(&*error))?;
    Ok(sequences.into_iter().collect())
}

fn describe(stream: &str, created: Timestamp) -> String {
    format!("{stream}, created at {created}, is not verified yet, was replaced or lost its end")
}
