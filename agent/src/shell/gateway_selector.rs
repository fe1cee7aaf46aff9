//! Selection of one gateway among several.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The gateways of a control plane, one of them in use.
#[derive(Debug)]
pub struct GatewaySelector {
    urls: Vec<String>,
    current: AtomicUsize,
}

impl GatewaySelector {
    /// Base URLs, comma separated; `salt` spreads agents over them.
    pub fn new(urls: &str, salt: u64) -> Self {
        let urls: Vec<String> = urls
            .split(',')
            .map(|url| url.trim().trim_end_matches('/').to_owned())
            .collect();
        // `split` returns at least one URL.
        let first = salt % urls.len() as u64;
        Self {
            current: AtomicUsize::new(usize::try_from(first).unwrap_or(0)),
            urls,
        }
    }

    /// The gateway in use, with its number.
    pub fn current(&self) -> (usize, &str) {
        let number = self.current.load(Ordering::Relaxed) % self.urls.len();
        (number, &self.urls[number])
    }

    /// Moves on from gateway `number`, unless another request has done so already.
    pub fn failed(&self, number: usize) {
        let next = (number + 1) % self.urls.len();
        // When the exchange fails, another request has selected the next gateway.
        let moved =
            self.current
                .compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() && next != number {
            tracing::debug!(
                from = self.urls[number],
                to = self.urls[next],
                "next gateway"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_gateway_is_kept_after_failures() {
        let selector = GatewaySelector::new("https://a:1/", 77);
        assert_eq!(selector.current(), (0, "https://a:1"));
        selector.failed(0);
        assert_eq!(selector.current(), (0, "https://a:1"));
    }

    #[test]
    fn concurrent_failures_switch_the_gateway_once() {
        let selector = GatewaySelector::new("https://a,https://b, https://c/", 1);
        assert_eq!(selector.current(), (1, "https://b"));
        selector.failed(1);
        selector.failed(1);
        assert_eq!(selector.current(), (2, "https://c"));
        selector.failed(2);
        assert_eq!(selector.current(), (0, "https://a"));
    }
}
