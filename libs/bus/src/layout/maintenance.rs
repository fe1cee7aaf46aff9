//! Bringing the layout back while services run: leases, logs and consumers are all gone when the
//! server lost its data, so whoever is there makes them anew.

use std::time::Duration;

use futures::StreamExt as _;
use nixfleet_proto::Timestamp;
use tokio_util::sync::CancellationToken;

use super::desired;
use super::ensure::LayoutError;
use crate::Bus;
use crate::layout::sequence_floors::SequenceFloors;
use crate::message::StreamIdentity;
use crate::reader::leader_reads::{ReadFailure, stream_info};

/// How often it is looked whether the layout is there; a new connection is looked at once.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Pause before another look when the last one was not answered.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Streams that are asked for at once.
const CONCURRENT_REQUESTS: usize = 8;

/// How the layout was found.
#[derive(Debug, PartialEq, Eq)]
enum LayoutState {
    /// As it was known.
    Intact,
    /// Something is not there, or is another one.
    Broken(String),
    /// Nobody answered.
    Unknown(String),
}

impl Bus {
    /// Looks after the layout until `stop`: what is missing is created above the positions
    /// that `floors_source` reads, and after every new connection nothing this process appends counts as
    /// durable before the streams were found to be those it knew. Any number of services may do this
    /// at once. Counts from the call on, not from the first poll.
    ///
    /// `floors_source` reads what tables and archive cover now, or says why that is not known; then
    /// nothing is created.
    ///
    /// # Errors
    /// When the fleet on the bus is another one than the configured.
    pub fn maintain_layout<R, F>(
        &self,
        floors_source: R,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), LayoutError>> + Send + use<R, F>
    where
        R: Fn() -> F + Send + Sync,
        F: Future<Output = Result<SequenceFloors, String>> + Send,
    {
        self.known_streams().require_verification();
        let bus = self.clone();
        async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                ended = bus.maintain(&floors_source) => ended,
            }
        }
    }

    /// Whether the streams are those of this fleet, as [`Bus::maintain_layout`] found them last.
    ///
    /// # Errors
    /// Says what is wrong, and the remedy where somebody has to do something.
    pub fn check_layout(&self) -> Result<(), String> {
        self.known_streams().check()
    }

    async fn maintain<R, F>(&self, floors_source: &R) -> Result<(), LayoutError>
    where
        R: Fn() -> F + Send + Sync,
        F: Future<Output = Result<SequenceFloors, String>> + Send,
    {
        let mut made = self.connections().publish_made.clone();
        let mut verified = 0;
        loop {
            let connection = *made.borrow_and_update();
            let is_new = connection != verified || self.known_streams().check().is_err();
            let pause = match self.inspect(is_new).await {
                LayoutState::Intact => {
                    if is_new {
                        self.known_streams().verify(connection);
                        verified = connection;
                    }
                    CHECK_INTERVAL
                }
                LayoutState::Unknown(reason) => {
                    tracing::debug!(reason, "the streams cannot be looked at");
                    RETRY_PAUSE
                }
                LayoutState::Broken(what) => match self.restore(&what, floors_source).await? {
                    true => {
                        self.known_streams().verify(connection);
                        verified = connection;
                        CHECK_INTERVAL
                    }
                    false => RETRY_PAUSE,
                },
            };
            tokio::select! {
                // The sender lives as long as the connection; its end ends the bus.
                _ = made.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Looks at the streams: at all of them after a new connection, otherwise at those that are made
    /// first and last.
    async fn inspect(&self, all: bool) -> LayoutState {
        let names = self.names();
        let leases = format!("KV_{}", names.lease_bucket());
        let mut streams = vec![leases.clone(), names.dead_stream()];
        if all {
            let buckets = [names.manifest_bucket(), names.checkpoint_bucket()];
            streams.extend(buckets.map(|bucket| format!("OBJ_{bucket}")));
            let desired = desired::streams(self.config(), names);
            streams.extend(desired.into_iter().map(|desired| desired.name));
        }
        let context = &self.connections().consume_js;
        let looks = streams.into_iter().map(|stream| async {
            let info = stream_info(context, &stream).await;
            (stream, info)
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(CONCURRENT_REQUESTS);
        while let Some((stream, info)) = looks.next().await {
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

    /// Makes the layout anew, or takes what somebody else has made; false when that has to wait.
    async fn restore<R, F>(&self, what: &str, floors_source: &R) -> Result<bool, LayoutError>
    where
        R: Fn() -> F + Send + Sync,
        F: Future<Output = Result<SequenceFloors, String>> + Send,
    {
        let floors = match floors_source().await {
            Ok(floors) => floors,
            Err(reason) => {
                self.report_fault(format!(
                    "{what}, and what the tables cover is not known: {reason}"
                ));
                return Ok(false);
            }
        };
        match self.ensure_layout(&floors).await {
            Ok(()) => {
                tracing::info!(what, "the streams are those of the tables");
                Ok(true)
            }
            Err(error @ (LayoutError::Regressed { .. } | LayoutError::Unavailable { .. })) => {
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

    /// States a fault, once in the log.
    fn report_fault(&self, fault: String) {
        if self.known_streams().check().as_ref() != Err(&fault) {
            tracing::warn!(fault, "nothing is appended");
        }
        self.known_streams().fail(fault);
    }
}

fn describe(stream: &str, created: Timestamp) -> String {
    format!("{stream}, made at {created}, was not looked at yet, is another one or lost its end")
}
