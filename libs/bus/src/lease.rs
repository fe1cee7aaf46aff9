//! Leases keep two workers from doing the same work. They are never what makes the work correct:
//! every log has its own fence.
//!
//! A lease is a key with a time to live, renewed by its holder. The holder counts its own time on
//! the monotonic clock and stops two seconds before the server would give the key away.

mod keeper;
mod record;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Bus;
use crate::config::ConfigFault;
use keeper::Keeper;
use record::{Current, Holder, Record, Written};

/// How long before its expiry a holder stops: more than the pauses of a loaded machine.
const MARGIN: Duration = Duration::from_secs(2);
/// A standby looks this often; an expiry is not announced on the bus.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After an announcement the store may be a moment behind it.
const SETTLE: Duration = Duration::from_millis(20);

/// Section `lease` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaseConfig {
    /// A lease whose holder died is free after this time; whole seconds, as the server counts them.
    pub ttl_seconds: u64,
    /// How often the holder renews: two renewals may fail before it has to stop.
    pub renew_seconds: u64,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            ttl_seconds: 10,
            renew_seconds: 3,
        }
    }
}

impl LeaseConfig {
    /// Everything that is wrong with the values.
    pub fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut fault = |key, message: &str| {
            let message = message.to_owned();
            faults.push(ConfigFault { key, message });
        };
        if !(4..=3_600).contains(&self.ttl_seconds) {
            fault("ttl_seconds", "must be between 4 and 3600");
        }
        if self.renew_seconds == 0 || self.renew_seconds + MARGIN.as_secs() >= self.ttl_seconds {
            fault(
                "renew_seconds",
                "must be above 0 and leave more than 2 s before ttl_seconds",
            );
        }
        faults
    }

    fn ttl(self) -> Duration {
        Duration::from_secs(self.ttl_seconds)
    }

    fn renew(self) -> Duration {
        Duration::from_secs(self.renew_seconds)
    }
}

/// The leases of one service, taken in the name of one instance.
#[derive(Clone)]
pub struct Leases {
    bus: Bus,
    service: Arc<str>,
    instance: Arc<str>,
    config: LeaseConfig,
}

impl Leases {
    pub(crate) fn new(bus: Bus, service: &str, instance: &str, config: LeaseConfig) -> Self {
        Self {
            bus,
            service: service.into(),
            instance: instance.into(),
            config,
        }
    }

    /// Waits until the key is free and takes it: at once when its holder gives it back, within the
    /// time to live when its holder died. Failures of the bus are waited out.
    ///
    /// Dropping the future stands back; a key taken in that very moment is free again after its
    /// time to live.
    pub async fn acquire(&self, key: &str) -> Lease {
        let record = Record::new(self.bus.clone(), &self.service, key, self.config.ttl());
        let mut candidate = Candidate {
            holder: Holder {
                instance: self.instance.to_string(),
                process: self.bus.ids().process().to_owned(),
                renewal: 0,
            },
            record,
            ttl: self.config.ttl(),
            asked_at: None,
        };
        let mut news = None;
        let mut reported = false;
        loop {
            // Listening comes first, so that nothing given back after the look is missed.
            if news.is_none() {
                news = self.listen(candidate.record.subject()).await;
            }
            match candidate.look().await {
                Ok(Some(taken)) => return self.hold(key, candidate, taken),
                Ok(None) => {}
                Err(reason) => {
                    if !reported {
                        tracing::warn!(service = %self.service, key, reason, "lease not reachable");
                    }
                    reported = true;
                }
            }
            wait(&mut news).await;
        }
    }

    async fn listen(&self, subject: &str) -> Option<Subscriber> {
        match self
            .bus
            .connections()
            .lease
            .subscribe(subject.to_owned())
            .await
        {
            Ok(subscriber) => Some(subscriber),
            Err(error) => {
                tracing::warn!(%error, "lease changes are polled only");
                None
            }
        }
    }

    fn hold(&self, key: &str, candidate: Candidate, taken: Taken) -> Lease {
        let lost = CancellationToken::new();
        let release = self.bus.closing().child_token();
        let done = TaskTracker::new();
        let keeper = Keeper {
            service: self.service.clone(),
            key: key.to_owned(),
            record: candidate.record,
            holder: candidate.holder,
            revision: taken.revision,
            valid_until: taken.asked_at + self.config.ttl() - MARGIN,
            config: self.config,
            lost: lost.clone(),
            release: release.clone(),
        };
        keeper.note("acquired");
        tracing::info!(service = %self.service, key, "lease acquired");
        self.bus.tracker().spawn(done.track_future(keeper.run()));
        done.close();
        Lease {
            key: key.to_owned(),
            lost,
            release,
            done,
        }
    }
}

/// Waits for news about a key or for the next look.
async fn wait(news: &mut Option<Subscriber>) {
    let Some(subscriber) = news else {
        tokio::time::sleep(LOOK_EVERY).await;
        return;
    };
    match tokio::time::timeout(LOOK_EVERY, subscriber.next()).await {
        Ok(Some(_)) => tokio::time::sleep(SETTLE).await,
        Ok(None) => *news = None,
        Err(_) => {}
    }
}

/// Somebody who wants a key.
struct Candidate {
    record: Record,
    holder: Holder,
    ttl: Duration,
    /// When the last attempt was sent whose fate is unknown.
    asked_at: Option<Instant>,
}

/// A key that was taken.
struct Taken {
    revision: u64,
    asked_at: Instant,
}

impl Candidate {
    /// Looks once and takes the key if it is free. An earlier attempt that succeeded without an
    /// answer is recognised by its holder.
    async fn look(&mut self) -> Result<Option<Taken>, String> {
        let expected = match self.record.read().await? {
            Current::Free(revision) => revision,
            Current::Held(revision, holder) => {
                let Some(asked_at) = self
                    .asked_at
                    .filter(|_| holder.as_ref() == Some(&self.holder))
                else {
                    return Ok(None);
                };
                if asked_at.elapsed() + MARGIN < self.ttl {
                    return Ok(Some(Taken { revision, asked_at }));
                }
                revision
            }
        };
        let asked_at = Instant::now();
        self.holder.renewal += 1;
        self.asked_at = Some(asked_at);
        match self.record.write(&self.holder, expected).await {
            Written::Stored(revision) => Ok(Some(Taken { revision, asked_at })),
            Written::Conflict => Ok(None),
            Written::Unknown(reason) => Err(reason),
        }
    }
}

/// A key that is held. Dropping it gives it back.
pub struct Lease {
    key: String,
    lost: CancellationToken,
    release: CancellationToken,
    done: TaskTracker,
}

impl Lease {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// True until the lease is lost.
    pub fn is_held(&self) -> bool {
        !self.lost.is_cancelled()
    }

    /// Completes when the lease is lost: another holder was seen, or it could not be renewed in
    /// time. Work under it must stop then.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// The same as a token, for the parts of the work.
    pub fn lost_token(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives the key back, so that the next holder takes it at once.
    pub async fn release(self) {
        self.release.cancel();
        self.done.wait().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_leaves_room_for_a_failed_renewal() {
        assert_eq!(LeaseConfig::default().faults(), Vec::new());
        let tight = LeaseConfig {
            ttl_seconds: 5,
            renew_seconds: 3,
        };
        assert_eq!(tight.faults().len(), 1);
    }
}
