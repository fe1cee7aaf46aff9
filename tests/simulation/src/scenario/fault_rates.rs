//! Rates of faults that can happen at any time before the recovery phase, in permille.

use crate::engine::Rng;
use crate::simulated_servers::stream::RetryCheckOrder;

/// Rates, and how the broker answers a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRates {
    /// A call is lost.
    pub lost_call: u32,
    /// A reply is lost.
    pub lost_reply: u32,
    /// A publish arrives twice.
    pub twice: u32,
    /// A message takes seconds.
    pub slow: u32,
    /// A delivery starts too early, as after a consumer was reset.
    pub redelivery: u32,
    /// A delivery misses its first message.
    pub gap: u32,
    /// A request or answer between host and gateway is lost.
    pub lost_request: u32,
    /// An agent crashes between two commands.
    pub agent_crash: u32,
    /// A rollback fails and is tried again.
    pub rollback_fails: u32,
    /// How a retried publish is answered.
    pub retry_order: RetryCheckOrder,
}

impl FaultRates {
    /// No faults.
    pub const NONE: Self = Self {
        lost_call: 0,
        lost_reply: 0,
        twice: 0,
        slow: 0,
        redelivery: 0,
        gap: 0,
        lost_request: 0,
        agent_crash: 0,
        rollback_fails: 0,
        retry_order: RetryCheckOrder::FenceFirst,
    };

    /// The rates of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed, "noise");
        let level = *rng.pick(&[0, 1, 1, 2, 5]);
        let mut rate = |most: u32| rng.below(u64::from(most * level) + 1) as u32;
        Self {
            lost_call: rate(4),
            lost_reply: rate(8),
            twice: rate(8),
            slow: rate(8),
            redelivery: rate(12),
            gap: rate(6),
            lost_request: rate(8),
            agent_crash: rate(2),
            rollback_fails: rate(40),
            retry_order: *rng.pick(&[RetryCheckOrder::FenceFirst, RetryCheckOrder::IdFirst]),
        }
    }
}
