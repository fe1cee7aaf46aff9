//! Limits of the agent, all of them local.

use chrono::TimeDelta;
use nixfleet_proto::wire::EVENTS_PER_REQUEST_MAX;

use super::outbox::RequestLimits;

/// Intervals, windows and bounds of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// Largest age of a manifest at its activation.
    pub manifest_age_max: TimeDelta,
    /// Duration after which a failing enforce probe fails the host.
    pub sustained_failure: TimeDelta,
    /// Time from the end of a probe's run to its next one.
    pub probe_interval: TimeDelta,
    /// Heartbeat interval.
    pub heartbeat_interval: TimeDelta,
    /// Time after the last acknowledged event before a heartbeat contains the running closure: the control
    /// plane infers missed transitions from it and must not infer those it is about to fold.
    pub heartbeat_settle: TimeDelta,
    /// First pause after a failed request; doubles up to `retry_max`.
    pub retry_first: TimeDelta,
    /// Longest pause between two attempts.
    pub retry_max: TimeDelta,
    /// Answered events kept per rollout for a replay; bounds memory.
    pub events_kept_max: usize,
    /// Events waiting per rollout above which undurable ones are dropped, oldest first.
    pub events_waiting_max: usize,
    /// Largest number of events per request, bounded by the protocol.
    pub events_per_request_max: usize,
    /// Approximate size limit of a request with several events: well below the limit of the gateway.
    pub request_bytes_max: usize,
    /// Failed rollbacks after which the agent reports that none will come.
    pub rollback_attempts_max: u32,
    /// Rollouts remembered per host; the oldest replaced one is forgotten first.
    pub rollouts_max: usize,
    /// Dispatches held while their manifests are fetched.
    pub dispatches_max: usize,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            manifest_age_max: TimeDelta::seconds(3600),
            sustained_failure: TimeDelta::seconds(120),
            probe_interval: TimeDelta::seconds(30),
            heartbeat_interval: TimeDelta::seconds(60),
            heartbeat_settle: TimeDelta::seconds(2),
            retry_first: TimeDelta::seconds(1),
            retry_max: TimeDelta::seconds(60),
            events_kept_max: 64,
            events_waiting_max: 256,
            events_per_request_max: EVENTS_PER_REQUEST_MAX,
            request_bytes_max: 192 * 1024,
            rollback_attempts_max: 20,
            rollouts_max: 16,
            dispatches_max: 8,
        }
    }
}

impl AgentConfig {
    /// Bounds of one request with events.
    pub(super) fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            events: self.events_per_request_max.clamp(1, EVENTS_PER_REQUEST_MAX),
            bytes: self.request_bytes_max,
        }
    }

    /// The pause before attempt `attempts + 1`, spread over 50 to 100 % by `salt`, so that agents that
    /// failed together retry at different times.
    pub fn backoff(&self, attempts: u32, salt: u64) -> TimeDelta {
        let first = self.retry_first.num_milliseconds().max(1);
        let longest = self.retry_max.num_milliseconds().max(first);
        let full = first
            .saturating_mul(1_i64 << attempts.saturating_sub(1).min(20))
            .min(longest);
        let spread = i64::try_from(mix(salt ^ u64::from(attempts)) % 512).unwrap_or(0);
        TimeDelta::milliseconds(full / 2 + full * spread / 1024)
    }
}

/// FNV-1a 64 of a text: a stable salt per host.
pub fn salt(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// SplitMix64's finaliser: spreads neighbouring values over all bits.
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let config = AgentConfig::default();
        for (attempts, low, high) in [(1, 500, 1000), (2, 1000, 2000), (30, 30_000, 60_000)] {
            for salt in 0..200 {
                let pause = config.backoff(attempts, salt).num_milliseconds();
                assert!((low..=high).contains(&pause), "{attempts} {salt}: {pause}");
            }
        }
    }
}
