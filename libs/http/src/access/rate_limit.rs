//! How often a host may ask, and with how many bytes: one token bucket per host.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use nixfleet_proto::wire::EVENTS_PER_REQUEST_MAX;
use nixfleet_service::{CancellationToken, Faults};
use serde::{Deserialize, Serialize};
use tokio::time::interval;

use crate::problem::ApiError;

/// How often hosts that have their whole burst again are forgotten.
const FORGET: Duration = Duration::from_secs(30);
/// How often those that are remembered are counted.
const COUNT: Duration = Duration::from_secs(1);

/// How often each host may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesConfig {
    /// Requests of one host in the long run, per second; an array of events counts each of them. A
    /// host reports some ten events per rollout, so this is far above anything honest.
    pub requests_per_second: u32,
    /// Requests of one host at once on top: a full queue after an outage, for several rollouts.
    pub requests_burst: u32,
    /// Bytes of a body that count as one request: a larger body counts as several, at most as the burst. An
    /// honest event has some 400 bytes, so only large ones count more than once; what a host may add to a log
    /// is this times `requests_per_second`, 50 KiB per second by default: hours until a log of the default
    /// size would be full, even if nothing trimmed it.
    pub bytes_per_request: usize,
    /// Hosts whose rate is remembered, about 100 bytes each; those that were quiet for long enough
    /// to have their whole burst again are forgotten first.
    pub hosts: usize,
}

impl Default for RatesConfig {
    fn default() -> Self {
        Self {
            requests_per_second: 50,
            requests_burst: 1_000,
            bytes_per_request: 1024,
            hosts: 200_000,
        }
    }
}

impl RatesConfig {
    /// Adds everything that is wrong with the values.
    pub fn validate(&self, faults: &mut Faults) {
        let per_second = self.requests_per_second;
        faults.require_range("rates.requests_per_second", per_second, 1..=1_000_000);
        // A full array of events is at most so many requests.
        let burst = self.requests_burst as usize;
        faults.require_range(
            "rates.requests_burst",
            burst,
            EVENTS_PER_REQUEST_MAX..=1_000_000,
        );
        let bytes = self.bytes_per_request;
        faults.require_range("rates.bytes_per_request", bytes, 64..=1 << 30);
        faults.require_range("rates.hosts", self.hosts, 1..=1_000_000);
    }
}

type Buckets<C> =
    RateLimiter<Arc<str>, HashMapStateStore<Arc<str>>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The buckets of all hosts that asked lately.
#[derive(Debug)]
pub struct Rates<C: Clock = DefaultClock> {
    buckets: Buckets<C>,
    clock: C,
    burst: usize,
    bytes_per_request: usize,
    hosts_max: usize,
}

impl Rates {
    /// Full buckets for everyone.
    pub fn new(config: &RatesConfig) -> Self {
        Self::with_clock(config, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(config: &RatesConfig, clock: C) -> Self {
        let at_least_one = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(config.requests_per_second))
            .allow_burst(at_least_one(config.requests_burst));
        Self {
            buckets: RateLimiter::hashmap_with_clock(quota, clock.clone()),
            clock,
            burst: config.requests_burst as usize,
            bytes_per_request: config.bytes_per_request.max(1),
            hosts_max: config.hosts,
        }
    }

    /// Takes what a body of `host` costs beyond the one request that is taken when a request arrives: one for
    /// each of its items, or for each of its [`RatesConfig::bytes_per_request`], whichever are more.
    ///
    /// # Errors
    /// As [`Rates::take`].
    pub fn take_body(&self, host: &Arc<str>, items: usize, bytes: usize) -> Result<(), ApiError> {
        let by_size = bytes.div_ceil(self.bytes_per_request);
        // A body that costs more than the burst could never be sent.
        let cost = items.max(by_size).min(self.burst);
        self.take(host, cost.saturating_sub(1))
    }

    /// Takes `count` requests out of the bucket of `host`, or none of them.
    ///
    /// # Errors
    /// 429 with the pause after which there is room, 503 when too many hosts asked lately.
    pub fn take(&self, host: &Arc<str>, count: usize) -> Result<(), ApiError> {
        let Some(count) = u32::try_from(count).ok().and_then(NonZeroU32::new) else {
            return Ok(());
        };
        if self.buckets.len() >= self.hosts_max {
            self.forget_idle();
            if self.buckets.len() >= self.hosts_max {
                let message = "too many hosts are asking at once";
                return Err(ApiError::unavailable("too-busy", message, 5));
            }
        }
        let pause = match self.buckets.check_key_n(host, count) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(not_until)) => not_until.wait_time_from(self.clock.now()),
            // More than the burst at once; no configuration makes one request as large.
            Err(_) => Duration::from_secs(60),
        };
        let seconds = u32::try_from(pause.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
        Err(ApiError::too_many(
            "rate-limited",
            "this host asks more often, or with more bytes, than a host may",
            seconds.max(1),
        ))
    }

    fn forget_idle(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }

    /// Forgets idle hosts from time to time until stopped, and says how many there are.
    pub async fn prune_until_stopped(&self, stop: CancellationToken, count: impl Fn(usize)) {
        let (mut forget, mut counted) = (interval(FORGET), interval(COUNT));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = forget.tick() => self.forget_idle(),
                _ = counted.tick() => count(self.buckets.len()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rates(hosts: usize) -> (Rates<FakeRelativeClock>, FakeRelativeClock) {
        let limits = RatesConfig {
            requests_per_second: 10,
            requests_burst: 100,
            bytes_per_request: 1_000,
            hosts,
        };
        let clock = FakeRelativeClock::default();
        (Rates::with_clock(&limits, clock.clone()), clock)
    }

    fn refusal(taken: Result<(), ApiError>) -> Option<(&'static str, Option<u32>)> {
        let refusal = taken.err()?;
        Some((refusal.code(), refusal.retry_after_seconds()))
    }

    #[test]
    fn a_host_has_a_burst_and_then_its_rate_and_others_have_their_own() {
        let (rates, clock) = rates(10);
        let (a, b) = ("a".into(), "b".into());
        assert_eq!(refusal(rates.take(&a, 100)), None);
        assert_eq!(refusal(rates.take(&a, 1)), Some(("rate-limited", Some(1))));
        assert_eq!(refusal(rates.take(&b, 1)), None);
        clock.advance(Duration::from_millis(100));
        assert_eq!(refusal(rates.take(&a, 1)), None);
        assert_eq!(refusal(rates.take(&a, 50)), Some(("rate-limited", Some(5))));
        clock.advance(Duration::from_secs(5));
        assert_eq!(refusal(rates.take(&a, 50)), None);
        assert_eq!(refusal(rates.take(&a, 0)), None);
    }

    #[test]
    fn a_large_body_costs_by_its_bytes_and_many_items_by_their_number() {
        let (rates, clock) = rates(10);
        let host = "a".into();
        // Nothing beyond the request itself.
        assert_eq!(refusal(rates.take_body(&host, 1, 1_000)), None);
        assert!(rates.buckets.is_empty());
        assert_eq!(refusal(rates.take_body(&host, 1, 50_000)), None);
        assert_eq!(refusal(rates.take_body(&host, 30, 9_000)), None);
        let refused = refusal(rates.take_body(&host, 2, 50_000));
        assert_eq!(refused, Some(("rate-limited", Some(3))));
        clock.advance(Duration::from_secs(10));
        // A body that is larger than the burst takes the burst.
        assert_eq!(refusal(rates.take_body(&host, 1, 1_000_000)), None);
        let refused = refusal(rates.take_body(&host, 1, 3_000));
        assert_eq!(refused, Some(("rate-limited", Some(1))));
    }

    #[test]
    fn only_so_many_hosts_are_remembered_and_quiet_ones_make_room() {
        let (rates, clock) = rates(2);
        let host = |number: u32| Arc::from(number.to_string());
        assert_eq!(refusal(rates.take(&host(1), 10)), None);
        assert_eq!(refusal(rates.take(&host(2), 10)), None);
        assert_eq!(
            refusal(rates.take(&host(3), 1)),
            Some(("too-busy", Some(5)))
        );
        clock.advance(Duration::from_secs(2));
        assert_eq!(refusal(rates.take(&host(3), 1)), None);
        assert_eq!(rates.buckets.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_are_counted_and_quiet_ones_forgotten_until_it_stops() {
        let (rates, clock) = rates(10);
        assert_eq!(refusal(rates.take(&"a".into(), 1)), None);
        let (stop, last) = (CancellationToken::new(), Cell::new(None));
        let said = async {
            tokio::time::sleep(COUNT * 2).await;
            assert_eq!(last.get(), Some(1));
            clock.advance(FORGET);
            tokio::time::sleep(FORGET).await;
            assert_eq!(last.get(), Some(0));
            stop.cancel();
        };
        let kept = rates.prune_until_stopped(stop.clone(), |hosts| last.set(Some(hosts)));
        futures::join!(kept, said);
    }
}
