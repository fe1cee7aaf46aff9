//! What this process knows of the streams, so that it notices when they are not those it knew.
//!
//! A server that lost its data, or got an older copy of it, takes appends as if nothing had happened.
//! So after every new connection the streams are looked at, and until then nobody is told that
//! something is durable.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nixfleet_proto::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::message::StreamIdentity;

/// A stream as it was last seen.
#[derive(Debug, Clone, Copy)]
struct Known {
    created: Timestamp,
    /// The highest sequence that was remembered or acknowledged.
    floor: u64,
}

#[derive(Debug, Default)]
struct State {
    streams: BTreeMap<String, Known>,
    fault: Option<String>,
}

/// The streams of one process.
#[derive(Debug)]
pub(crate) struct KnownStreams {
    state: Mutex<State>,
    /// Somebody looks after the layout: without that nothing would ever be verified.
    maintained: AtomicBool,
    /// Grows when a stream turns out to be another one of the same name.
    generation: AtomicU64,
    /// The connection after which the streams were looked at last.
    verified: watch::Sender<u64>,
}

impl Default for KnownStreams {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            maintained: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            verified: watch::Sender::new(0),
        }
    }
}

impl KnownStreams {
    /// From now on nothing counts as durable before the streams were looked at.
    pub(super) fn require_verification(&self) {
        self.maintained.store(true, Ordering::SeqCst);
    }

    /// Which streams these are: writers that began in an earlier generation must not go on.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Takes a stream for the one of that name. `floor` is the highest sequence that is remembered.
    pub(super) fn adopt(&self, stream: &str, identity: StreamIdentity, floor: u64) {
        let created = identity.created;
        let known = Known { created, floor };
        let before = self.state().streams.insert(stream.to_owned(), known);
        if before.is_some_and(|before| before.created != created) {
            self.generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// True when this is the stream that was known, and nothing that was acknowledged is gone.
    pub(super) fn is_known(&self, stream: &str, identity: StreamIdentity) -> bool {
        let known = self.state().streams.get(stream).copied();
        known.is_some_and(|known| {
            known.created == identity.created && known.floor <= identity.last_seq
        })
    }

    /// Notes that the streams were looked at after this connection was made.
    pub(super) fn verify(&self, connection: u64) {
        self.state().fault = None;
        self.verified.send_replace(connection);
    }

    /// Notes why nothing may be appended.
    pub(super) fn fail(&self, fault: String) {
        self.state().fault = Some(fault);
    }

    /// Says why nothing may be appended.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &self.state().fault {
            Some(fault) => Err(fault.clone()),
            None if self.maintained.load(Ordering::SeqCst) && *self.verified.borrow() == 0 => {
                Err("the streams were not looked at yet".to_owned())
            }
            None => Ok(()),
        }
    }

    /// Waits until the streams were looked at after this connection was made.
    pub(crate) async fn wait_verified(
        &self,
        connection: u64,
        deadline: Instant,
    ) -> Result<(), String> {
        if !self.maintained.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut verified = self.verified.subscribe();
        let looked = verified.wait_for(|verified| *verified >= connection);
        match tokio::time::timeout_at(deadline, looked).await {
            Ok(Ok(_)) => self.check(),
            Ok(Err(_)) | Err(_) => {
                self.check()?;
                Err("the streams were not looked at after the connection was made".to_owned())
            }
        }
    }

    /// Takes the sequence of an acknowledgement for durable, unless it is one that was there before.
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
                "{stream} stored a message at sequence {seq}, and {} was there before: it was lost \
                 or restored",
                known.floor
            ));
        }
        known.floor = seq;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment: a panic elsewhere leaves nothing half done.
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
    fn a_stream_that_is_another_or_lost_its_end_is_not_known() {
        let known_streams = verified_streams();
        assert!(known_streams.is_known("S", stream(1, 5)));
        assert!(!known_streams.is_known("S", stream(2, 9)));
        assert!(!known_streams.is_known("T", stream(1, 9)));
        assert_eq!(known_streams.acknowledge("S", 8), Ok(()));
        assert!(!known_streams.is_known("S", stream(1, 7)));
    }

    #[test]
    fn nothing_at_or_below_what_was_there_is_durable() {
        let known_streams = verified_streams();
        assert!(known_streams.acknowledge("S", 5).is_err());
        assert_eq!(known_streams.acknowledge("S", 6), Ok(()));
        assert!(known_streams.acknowledge("S", 6).is_err());
    }

    #[test]
    fn another_stream_begins_another_life() {
        let known_streams = verified_streams();
        known_streams.adopt("S", stream(1, 9), 9);
        assert_eq!(known_streams.generation(), 0);
        known_streams.adopt("S", stream(2, 0), 0);
        assert_eq!(known_streams.generation(), 1);
        assert_eq!(known_streams.acknowledge("S", 1), Ok(()));
    }

    #[tokio::test]
    async fn nothing_is_settled_before_it_was_looked_at() {
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
