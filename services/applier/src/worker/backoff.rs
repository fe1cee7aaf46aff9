//! Backoff between attempts.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// First pause: a lost connection is shorter, a server restart longer.
const FIRST: Duration = Duration::from_millis(50);

/// Exponential backoff with jitter and without a limit of attempts.
#[derive(Debug)]
pub struct Backoff {
    max: Duration,
    inner: ExponentialBackoff,
}

impl Backoff {
    pub fn new(max: Duration) -> Self {
        Self {
            max,
            inner: build(max),
        }
    }

    pub async fn sleep(&mut self) {
        let pause = self.inner.next().unwrap_or(self.max);
        tokio::time::sleep(pause).await;
    }

    pub fn reset(&mut self) {
        self.inner = build(self.max);
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
