//! Pauses between attempts.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// First pause; a restart of a server takes longer, a lost connection does not.
const FIRST: Duration = Duration::from_millis(50);

/// Growing pauses with jitter, for ever.
#[derive(Debug)]
pub struct Pauses {
    max: Duration,
    pauses: ExponentialBackoff,
}

impl Pauses {
    /// Pauses up to `max`, about.
    pub fn new(max: Duration) -> Self {
        Self {
            max,
            pauses: build(max),
        }
    }

    /// Sleeps for the next pause.
    pub async fn sleep(&mut self) {
        let pause = self.pauses.next().unwrap_or(self.max);
        tokio::time::sleep(pause).await;
    }

    /// Starts again with the shortest pause.
    pub fn reset(&mut self) {
        self.pauses = build(self.max);
    }
}

fn build(max: Duration) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST)
        .with_max_delay(max)
        .with_jitter()
        .without_max_times()
        .build()
}
