//! Behaviour of a closure on a host: a function of seed, hostname and closure.

use std::time::Duration;

use nixfleet_proto::{ClosureHash, Hostname};

use crate::profile::{CrashPoint, Failure, Profile, Range, closure_matches};
use nixfleet_agent::core::config::{mix, salt};

/// Behaviour of a closure on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosureBehavior {
    pub switch_time: Duration,
    /// Duration of a rollback from the closure.
    pub rollback_time: Duration,
    pub failure: Option<Failure>,
    /// The switch is deferred and the host reboots after this time.
    pub reboots_after: Option<Duration>,
    /// Crash of the agent at one point of the activation.
    pub crash: Option<SimulatedCrash>,
    /// The host loses its network.
    pub outage: Option<Outage>,
}

/// A crash of the agent process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulatedCrash {
    pub point: CrashPoint,
    /// Time until the agent restarts.
    pub restart_after: Duration,
}

/// An outage of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Time until the outage starts.
    pub after: Duration,
    pub duration: Duration,
}

/// Independent draws for one (seed, hostname, closure).
struct Draws(u64);

impl Draws {
    fn draw(&self, topic: &str) -> u64 {
        mix(self.0 ^ salt(topic))
    }

    fn within(&self, topic: &str, range: Range) -> Duration {
        range.pick(self.draw(topic))
    }

    /// True for about `share` of all hosts.
    fn applies_to_share(&self, topic: &str, share: f64) -> bool {
        // 53 bits are what a double holds exactly.
        let unit = (self.draw(topic) >> 11) as f64 / (1_u64 << 53) as f64;
        unit < share
    }
}

impl ClosureBehavior {
    /// The outcome of a closure on a host according to the profile.
    pub fn of(profile: &Profile, seed: u64, hostname: &Hostname, closure: &ClosureHash) -> Self {
        let draws = Draws(mix(mix(seed) ^ salt(hostname.as_str())) ^ salt(closure.as_str()));
        let applies = |pattern: &str| closure_matches(pattern, closure.as_str());
        let failure = profile
            .failures
            .iter()
            .enumerate()
            .find(|(at, rule)| {
                applies(&rule.closure)
                    && draws.applies_to_share(&format!("failure-{at}"), rule.share)
            })
            .map(|(_, rule)| rule.fails.clone());
        let reboots_after = profile
            .deferral
            .as_ref()
            .filter(|rule| applies(&rule.closure) && draws.applies_to_share("deferral", rule.share))
            .map(|rule| draws.within("reboot", rule.reboot_after_ms));
        let crash = profile
            .crash
            .as_ref()
            .filter(|rule| applies(&rule.closure) && draws.applies_to_share("crash", rule.share))
            .and_then(|rule| {
                let choices = u64::try_from(rule.points.len()).ok()?;
                let at = usize::try_from(draws.draw("crash-point").checked_rem(choices)?).ok()?;
                let point = *rule.points.get(at)?;
                Some(SimulatedCrash {
                    point,
                    restart_after: draws.within("restart", rule.restart_after_ms),
                })
            });
        let outage = profile
            .offline
            .as_ref()
            .filter(|rule| applies(&rule.closure) && draws.applies_to_share("offline", rule.share))
            .map(|rule| Outage {
                after: draws.within("offline-start", rule.starts_after_ms),
                duration: draws.within("offline-duration", rule.duration_ms),
            });
        Self {
            switch_time: draws.within("switch", profile.activation_ms),
            rollback_time: draws.within("rollback", profile.rollback_ms),
            failure,
            reboots_after,
            crash,
            outage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile::parse(
            br#"{"failures":[{"closure":"bad*","share":0.2,"fails":{"kind":"probe","probeName":"http"}}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_outcome() {
        let profile = profile();
        let of = |seed, host: &str| {
            ClosureBehavior::of(&profile, seed, &host.parse().unwrap(), &"bad-1".into())
        };
        assert_eq!(of(7, "web-01"), of(7, "web-01"));
        assert_ne!(of(7, "web-01").switch_time, of(8, "web-01").switch_time);
    }

    #[test]
    fn a_share_applies_to_that_many_hosts_of_the_closure_only() {
        let profile = profile();
        let hit = |closure: &str| {
            (0..1000)
                .filter(|n| {
                    let host = format!("web-{n:04}").parse::<Hostname>().unwrap();
                    ClosureBehavior::of(&profile, 7, &host, &closure.into())
                        .failure
                        .is_some()
                })
                .count()
        };
        assert!((150..250).contains(&hit("bad-1")), "{}", hit("bad-1"));
        assert_eq!(hit("good-1"), 0);
    }
}
