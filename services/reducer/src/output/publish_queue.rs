//! Frames that wait for their append: one is in flight, each is fenced behind the one before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nixfleet_bus::PublishError;
use nixfleet_proto::mutation_testing;

use crate::output::frame_builder::BuiltFrame;
use crate::ownership::ownership_end::OwnershipEnd;

/// Frames that wait before no more are built.
const READY_MAX: usize = 4;

/// A frame with the fence of its append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencedFrame {
    /// The frame.
    pub built: Arc<BuiltFrame>,
    /// The output sequence that the frame must follow.
    pub expected: u64,
}

/// The frames of one owner. Clones share the queue: one task adds frames, another sends.
#[derive(Debug, Clone)]
pub struct PublishQueue {
    frames: Arc<Mutex<Frames>>,
}

#[derive(Debug)]
struct Frames {
    /// Sequence of the last appended frame: the fence of the next.
    out_seq: u64,
    /// Built and not sent.
    ready: VecDeque<BuiltFrame>,
    /// Sent, with an unknown result.
    in_flight: Option<Arc<BuiltFrame>>,
}

impl PublishQueue {
    /// Creates an empty queue behind this sequence.
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

    /// Adds frames in order.
    pub(crate) fn extend(&self, frames: Vec<BuiltFrame>) {
        self.frames().ready.extend(frames);
    }

    /// True when enough frames wait.
    pub(crate) fn is_full(&self) -> bool {
        self.frames().ready.len() >= READY_MAX
    }

    /// The oldest frame to send, unless one is in flight.
    pub fn publish(&self) -> Option<FencedFrame> {
        let mut frames = self.frames();
        if frames.in_flight.is_some() {
            return None;
        }
        let built = Arc::new(frames.ready.pop_front()?);
        frames.in_flight = Some(Arc::clone(&built));
        let expected = frames.out_seq;
        Some(FencedFrame { built, expected })
    }

    /// Sequence of the last frame once the queue is empty.
    pub fn last_seq(&self) -> u64 {
        let frames = self.frames();
        let unsent = frames.ready.len() + usize::from(frames.in_flight.is_some());
        frames.out_seq + unsent as u64
    }

    /// True while a frame is in flight.
    pub fn is_publishing(&self) -> bool {
        self.frames().in_flight.is_some()
    }

    /// Takes the publish result of the frame in flight. After every result but success the state
    /// may be ahead of the log and is void.
    ///
    /// # Errors
    /// [`OwnershipEnd`].
    pub fn published(&self, result: Result<u64, PublishError>) -> Result<(), OwnershipEnd> {
        let mut frames = self.frames();
        let built = frames.in_flight.take();
        match result {
            Err(PublishError::Fenced { last, .. })
                if mutation_testing::is_active("reducer-drop-fence") =>
            {
                frames.out_seq = last;
                if let Some(built) = built {
                    frames.ready.push_front(BuiltFrame::clone(&built));
                }
                Ok(())
            }
            Ok(seq) => {
                frames.out_seq = seq;
                Ok(())
            }
            Err(PublishError::Fenced { .. }) => Err(OwnershipEnd::Fenced),
            Err(error @ PublishError::TooLarge { .. }) => Err(OwnershipEnd::halted(error)),
            Err(error @ (PublishError::Unavailable(_) | PublishError::Full(_))) => {
                Err(OwnershipEnd::failed(error))
            }
        }
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        // Each change moves whole frames, so a panic elsewhere leaves the queue consistent.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
