//! Frames on their way into the log: one is in flight, each is fenced behind the one before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nixfleet_bus::PublishError;
use nixfleet_proto::mutation_testing;

use crate::ended::Ended;
use crate::writing::Folded;

/// Frames that wait to be sent before no more are written.
const READY_MAX: usize = 4;

/// A frame on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The frame.
    pub folded: Arc<Folded>,
    /// The output sequence it must follow.
    pub expected: u64,
}

/// What one owner has written. Clones are the same: the owner adds to it while another task sends.
#[derive(Debug, Clone)]
pub struct Outbox {
    frames: Arc<Mutex<Frames>>,
}

#[derive(Debug)]
struct Frames {
    /// Sequence of the last frame: the fence of the next.
    out_seq: u64,
    /// Written, and not sent.
    ready: VecDeque<Folded>,
    /// Sent, and its fate is unknown.
    in_flight: Option<Arc<Folded>>,
}

impl Outbox {
    /// Nothing is written yet behind this sequence.
    pub(crate) fn new(out_seq: u64) -> Self {
        let frames = Frames {
            out_seq,
            ready: VecDeque::new(),
            in_flight: None,
        };
        Self {
            frames: Arc::new(Mutex::new(frames)),
        }
    }

    /// Adds frames in their order.
    pub(crate) fn extend(&self, frames: Vec<Folded>) {
        self.frames().ready.extend(frames);
    }

    /// True when enough waits to be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.frames().ready.len() >= READY_MAX
    }

    /// The frame to send now: the one that was written first, unless one is in flight.
    pub fn publish(&self) -> Option<Publish> {
        let mut frames = self.frames();
        if frames.in_flight.is_some() {
            return None;
        }
        let folded = Arc::new(frames.ready.pop_front()?);
        frames.in_flight = Some(Arc::clone(&folded));
        let expected = frames.out_seq;
        Some(Publish { folded, expected })
    }

    /// Sequence of the last frame once all that are written are sent.
    pub fn last_seq(&self) -> u64 {
        let frames = self.frames();
        let unsent = frames.ready.len() + usize::from(frames.in_flight.is_some());
        frames.out_seq + unsent as u64
    }

    /// True while the fate of a frame is unknown.
    pub fn is_publishing(&self) -> bool {
        self.frames().in_flight.is_some()
    }

    /// Takes the fate of the frame in flight. Whatever it is but stored, the owner's state may be ahead
    /// of the log and is void.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn published(&self, result: Result<u64, PublishError>) -> Result<(), Ended> {
        let mut frames = self.frames();
        let folded = frames.in_flight.take();
        match result {
            Err(PublishError::Fenced { last, .. })
                if mutation_testing::is_active("reducer-drop-fence") =>
            {
                frames.out_seq = last;
                let folded = folded.map(|folded| Folded::clone(&folded));
                folded
                    .into_iter()
                    .for_each(|folded| frames.ready.push_front(folded));
                Ok(())
            }
            Ok(seq) => {
                frames.out_seq = seq;
                Ok(())
            }
            Err(PublishError::Fenced { .. }) => Err(Ended::Fenced),
            Err(error @ PublishError::TooLarge { .. }) => Err(Ended::halted(error)),
            Err(error @ (PublishError::Unavailable(_) | PublishError::Full(_))) => {
                Err(Ended::failed(error))
            }
        }
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        // A panic elsewhere leaves nothing half done: every change is one of a whole frame.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
