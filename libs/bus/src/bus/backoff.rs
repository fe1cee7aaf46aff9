//! Pauses between attempts to reach the server.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

/// Unlimited pauses: 50 ms, doubling up to 1 s, with jitter. The caller has the deadline.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(1))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Sleeps for the next pause; false, and no sleep, when the pause would reach the deadline.
pub(crate) async fn pause_before(
    deadline: Instant,
    pauses: &mut (impl Iterator<Item = Duration> + Send),
) -> bool {
    let pause = pauses.next().unwrap_or(Duration::from_secs(1));
    let is_in_time = Instant::now() + pause < deadline;
    if is_in_time {
        tokio::time::sleep(pause).await;
    }
    is_in_time
}
