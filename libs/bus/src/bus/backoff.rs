//! Pauses between attempts to reach the server.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Unlimited pauses: 50 ms, doubling up to 1 s, with jitter. The caller has the deadline.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(1))
        .with_jitter()
        .without_max_times()
        .build()
}
