//! Bringing the layout back while services run: leases, logs and consumers are all gone when the
//! server lost its data, so whoever is there makes them anew.

use std::time::Duration;

use futures::StreamExt as _;
use nixfleet_proto::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{LayoutError, wanted};
use crate::Bus;
use crate::floors::Floors;
use crate::leader::{Attempt, stream_info};
use crate::message::StreamIdentity;

/// How often it is looked whether the layout is there; a new connection is looked at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pause before another look when the last one was not answered.
const SOON: Duration = Duration::from_secs(1);
/// Streams that are asked for at once.
const AT_ONCE: usize = 8;

/// How the layout was found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// As it was known.
    Intact,
    /// Something is not there, or is another one.
    Broken(String),
    /// Nobody answered.
    Unknown(String),
}

impl Bus {
    /// Looks after the layout until `stop`: what is missing is created above the positions
    /// that `remembered` reads, and after every new connection nothing this process appends counts as
    /// durable before the streams were found to be those it knew. Any number of services may do this
    /// at once. Counts from the call on, not from the first poll.
    ///
    /// `remembered` reads what tables and archive cover now, or says why that is not known; then
    /// nothing is created.
    ///
    /// # Errors
    /// When the fleet on the bus is another one than the configured.
    pub fn keep_layout<R, F>(
        &self,
        remembered: R,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), LayoutError>> + Send + use<R, F>
    where
        R: Fn() -> F + Send + Sync,
        F: Future<Output = Result<Floors, String>> + Send,
    {
        self.standing().keep();
        let bus = self.clone();
        async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                ended = bus.look_after_layout(&remembered) => ended,
            }
        }
    }

    /// Whether the streams are those of this fleet, as [`Bus::keep_layout`] found them last.
    ///
    /// # Errors
    /// Says what is wrong, and the remedy where somebody has to do something.
    pub fn layout_state(&self) -> Result<(), String> {
        self.standing().check()
    }

    async fn look_after_layout<R, F>(&self, remembered: &R) -> Result<(), LayoutError>
    where
        R: Fn() -> F + Send + Sync,
        F: Future<Output = Result<Floors, String>> + Send,
    {
        let mut made = self.connections().publish_made.clone();
        let mut verified = 0;
        loop {
            let connection = *made.borrow_and_update();
            let is_new = connection != verified || self.standing().check().is_err();
            let pause = match self.look(is_new).await {
                Found::Intact => {
                    if is_new {
                        self.standing().verify(connection);
                        verified = connection;
                    }
                    LOOK_EVERY
                }
                Found::Unknown(reason) => {
                    tracing::debug!(reason, "the streams cannot be looked at");
                    SOON
                }
                Found::Broken(what) => match self.mend(&what, remembered).await? {
                    true => {
                        self.standing().verify(connection);
                        verified = connection;
                        LOOK_EVERY
                    }
                    false => SOON,
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
    async fn look(&self, all: bool) -> Found {
        let names = self.names();
        let leases = format!("KV_{}", names.lease_bucket());
        let mut streams = vec![leases.clone(), names.dead_stream()];
        if all {
            let buckets = [names.manifest_bucket(), names.checkpoint_bucket()];
            streams.extend(buckets.map(|bucket| format!("OBJ_{bucket}")));
            let wanted = wanted::streams(self.config(), names);
            streams.extend(wanted.into_iter().map(|wanted| wanted.name));
        }
        let context = &self.connections().consume_js;
        let looks = streams.into_iter().map(|stream| async {
            let info = stream_info(context, &stream).await;
            (stream, info)
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some((stream, info)) = looks.next().await {
            match info {
                Ok(info) => {
                    let is_log = !stream.starts_with("KV_") && !stream.starts_with("OBJ_");
                    let identity = StreamIdentity::new(&info);
                    if is_log && !self.standing().is_known(&stream, identity) {
                        return Found::Broken(describe(&stream, identity.created));
                    }
                }
                Err(Attempt::Missing) => return Found::Broken(format!("{stream} is gone")),
                Err(Attempt::Retry(reason)) => return Found::Unknown(reason),
            }
        }
        Found::Intact
    }

    /// Makes the layout anew, or takes what somebody else has made; false when that has to wait.
    async fn mend<R, F>(&self, what: &str, remembered: &R) -> Result<bool, LayoutError>
    where
        R: Fn() -> F + Send + Sync,
        F: Future<Output = Result<Floors, String>> + Send,
    {
        let floors = match remembered().await {
            Ok(floors) => floors,
            Err(reason) => {
                self.blame(format!(
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
                self.blame(error.to_string());
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
    fn blame(&self, fault: String) {
        if self.standing().check().as_ref() != Err(&fault) {
            tracing::warn!(fault, "nothing is appended");
        }
        self.standing().fail(fault);
    }
}

fn describe(stream: &str, created: Timestamp) -> String {
    format!("{stream}, made at {created}, was not looked at yet, is another one or lost its end")
}
