//! The streams as this process knows them, to detect that they were replaced or lost their end.
//!
//! A server that lost its data, or was restored from an older copy, accepts appends as before. So the
//! streams are checked after every new connection, and nothing counts as durable until then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nixfleet_proto::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::message::StreamIdentity;

#[derive(Debug, Clone, Copy)]
struct Known {
    created: Timestamp,
    /// The highest sequence that was recorded elsewhere or acknowledged.
    floor: u64,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<String, Known>,
    fault: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct KnownStreams {
    state: Mutex<State>,
    /// A task maintains the layout; without one the streams would never be verified.
    maintained: AtomicBool,
    /// Incremented when a stream is replaced by another one of the same name.
    generation: AtomicU64,
    /// Number of the connection after which the streams were verified last.
    verified: watch::Sender<u64>,
}

impl KnownStreams {
    /// From now on nothing counts as durable before the streams are verified.
    pub(super) fn require_verification(&self) {
        self.maintained.store(true, Ordering::SeqCst);
    }

    /// Generation of the streams. Writers that began in an earlier generation must stop.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Records a stream as the current one of its name. `floor` is the highest sequence that is recorded
    /// elsewhere.
    pub(super) fn adopt(&self, stream: &str, identity: StreamIdentity, floor: u64) {
        let created = identity.created;
        let known = Known { created, floor };
        let before = self.state().streams.insert(stream.to_owned(), known);
        if before.is_some_and(|before| before.created != created) {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// True when this is the known stream and no acknowledged message is lost.
    pub(super) fn is_known(&self, stream: &str, identity: StreamIdentity) -> bool {
        let known = self.state().streams.get(stream).copied();
        known.is_some_and(|known| {
            known.created == identity.created && known.floor <= identity.last_seq
        })
    }

    /// Records that the streams were verified after this connection was made.
    pub(super) fn verify(&self, connection: u64) {
        self.state().fault = None;
        self.verified.send_replace(connection);
    }

    pub(super) fn fail(&self, fault: String) {
        self.state().fault = Some(fault);
    }

    /// Returns the reason why nothing may be appended, if any.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.state().fault {
            Some(fault) => Err(fault.clone()),
            None if self.maintained.load(Ordering::SeqCst) && *self.verified.borrow() == 0 => {
                Err("the streams are not verified yet".to_owned())
            }
            None => Ok(()),
        }
    }

    /// Waits until the streams are verified after this connection was made.
    pub(crate) async fn wait_verified(
        &self,
        connection: u64,
        deadline: Instant,
    ) -> Result<(), String> {
        if !self.maintained.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut verified = self.verified.subscribe();
        let waited = verified.wait_for(|verified| *verified >= connection);
        match tokio::time::timeout_at(deadline, waited).await {
            Ok(Ok(_)) => self.check(),
            Ok(Err(_)) | Err(_) => {
                self.check()?;
                Err("the streams are not verified since the connection was made".to_owned())
            }
        }
    }

    /// Accepts an acknowledged sequence as durable, unless it repeats an earlier one.
    pub(crate) fn acknowledge(&self, stream: &str, seq: u64) -> Result<(), String> {
        if !self.maintained.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut state = self.state();
        let Some(known) = state.streams.get_mut(stream) else {
            return Ok(());
        };
        if seq <= known.floor {
            return Err(format!(
                "{stream} stored a message at sequence {seq}, but {} existed before: the stream \
                 was lost or restored",
                known.floor
            ));
        }
        known.floor = seq;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment, so that a panic elsewhere leaves no partial change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(created: i64, last_seq: u64) -> StreamIdentity {
        StreamIdentity {
            created: Timestamp::from_timestamp_nanos(created),
            first_seq: 1,
            last_seq,
        }
    }

    fn verified_streams() -> KnownStreams {
        let known_streams = KnownStreams::default();
        known_streams.require_verification();
        known_streams.adopt("S", stream(1, 7), 5);
        known_streams
    }

    #[test]
    fn a_replaced_or_shortened_stream_is_not_known() {
        let known_streams = verified_streams();
        assert!(known_streams.is_known("S", stream(1, 5)));
        assert!(!known_streams.is_known("S", stream(2, 9)));
        assert!(!known_streams.is_known("T", stream(1, 9)));
        assert_eq!(known_streams.acknowledge("S", 8), Ok(()));
        assert!(!known_streams.is_known("S", stream(1, 7)));
    }

    #[test]
    fn an_acknowledged_sequence_at_or_below_the_floor_is_not_durable() {
        let known_streams = verified_streams();
        assert!(known_streams.acknowledge("S", 5).is_err());
        assert_eq!(known_streams.acknowledge("S", 6), Ok(()));
        assert!(known_streams.acknowledge("S", 6).is_err());
    }

    #[test]
    fn a_replaced_stream_begins_a_new_generation() {
        let known_streams = verified_streams();
        known_streams.adopt("S", stream(1, 9), 9);
        assert_eq!(known_streams.generation(), 0);
        known_streams.adopt("S", stream(2, 0), 0);
        assert_eq!(known_streams.generation(), 1);
        assert_eq!(known_streams.acknowledge("S", 1), Ok(()));
    }

    #[tokio::test]
    async fn nothing_counts_as_durable_before_verification() {
        let known_streams = verified_streams();
        let now = Instant::now();
        assert!(known_streams.wait_verified(1, now).await.is_err());
        known_streams.verify(1);
        assert_eq!(known_streams.wait_verified(1, now).await, Ok(()));
        assert!(known_streams.wait_verified(2, now).await.is_err());
        known_streams.fail("it lost its end".to_owned());
        assert!(known_streams.wait_verified(1, now).await.is_err());
        known_streams.verify(2);
        assert_eq!(known_streams.wait_verified(2, now).await, Ok(()));
    }
}
