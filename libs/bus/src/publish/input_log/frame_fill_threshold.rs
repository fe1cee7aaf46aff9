//! Number of entries after which a frame is sent without waiting for more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nixfleet_proto::frame::MAX_FRAME_ENTRIES;

/// Shortest time from one small frame to the next, unless another frame waits behind it. Every frame costs
/// a disk write and a message to each reader, so fewer and larger frames are cheaper under load. An entry
/// that arrives alone is sent at once.
pub(super) const FRAME_INTERVAL: Duration = Duration::from_millis(6);

const MIN: usize = 64;

/// Number of entries from which on a frame is not small.
#[derive(Debug)]
pub(super) struct FrameFillThreshold(AtomicUsize);

impl Default for FrameFillThreshold {
    fn default() -> Self {
        Self(AtomicUsize::new(MIN))
    }
}

impl FrameFillThreshold {
    /// Sets the number of clients that send entries and wait for answers. The target is half of them: a
    /// frame that waited for more would wait for clients which wait for it.
    pub(super) fn expect(&self, clients: usize) {
        self.0.store(
            (clients / 2).clamp(MIN, MAX_FRAME_ENTRIES),
            Ordering::Relaxed,
        );
    }

    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_clients_fill_a_frame() {
        let target = FrameFillThreshold::default();
        assert_eq!(target.get(), 64);
        for (clients, expected) in [(0, 64), (128, 64), (600, 300), (1_000_000, 512), (3, 64)] {
            target.expect(clients);
            assert_eq!(target.get(), expected, "{clients} clients");
        }
    }
}
