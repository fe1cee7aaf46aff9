//! How large a frame becomes before it leaves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nixfleet_proto::frame::MAX_FRAME_ENTRIES;

/// Least time from one small frame to the next, unless another waits behind it. Every frame is a write
/// to the disk of the log and a message to each of its readers: under load this makes fewer and larger
/// ones of them. An entry that comes alone waits for nothing.
pub(super) const FRAME_INTERVAL: Duration = Duration::from_millis(6);

/// Entries of a frame that is worth a message of its own.
const MIN: usize = 64;

/// How many entries a frame has to have that is not small.
#[derive(Debug)]
pub(super) struct FrameTarget(AtomicUsize);

impl Default for FrameTarget {
    fn default() -> Self {
        Self(AtomicUsize::new(MIN))
    }
}

impl FrameTarget {
    /// So many clients send entries and wait for their answers. A frame that waited for more than half
    /// of them would soon wait for those that wait for it.
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
        let target = FrameTarget::default();
        assert_eq!(target.get(), 64);
        for (clients, expected) in [(0, 64), (128, 64), (600, 300), (1_000_000, 512), (3, 64)] {
            target.expect(clients);
            assert_eq!(target.get(), expected, "{clients} clients");
        }
    }
}
