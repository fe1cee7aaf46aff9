//! Admission of events: which host may report about which rollout.
//!
//! A host reports about the rollout of its channel in the verified release, and about rollouts that the fold
//! knows: open ones, and superseded ones until their retention ends. What is not in the memory of this
//! gateway is asked for: another gateway may know a newer release, and a host may have left the fleet while
//! its record is open.
//!
//! Source: docs/wire-protocol.md, events.

mod admitted;
mod known_rollouts;
mod remote_lookup;

use nixfleet_http::{ApiError, Current};
use nixfleet_proto::{ChannelName, Hostname, RolloutId};

use crate::app_state::App;
pub use admitted::{Admitted, AdmittedEvent, AdmittedEvents};
pub use known_rollouts::KnownRollouts;

/// What the memory of this gateway says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Admitted,
    /// The rollout is that of the release, which does not have the host on its channel.
    UnknownHost,
    /// The rollout is known, and the release does not have the host on its channel: was it once?
    LookUpHost,
    /// Neither the release nor the fold has the rollout: is this gateway behind?
    LookUpRollout,
}

/// Decides whether a host may report about a rollout.
///
/// # Errors
/// 503 `not-ready` without a verified release, or when the rollout may be one that this gateway has not
/// heard of; 404 `unknown-host` or `unknown-rollout`.
pub async fn admit(
    app: &App,
    hostname: &Hostname,
    rollout_id: &RolloutId,
) -> Result<Admitted, ApiError> {
    let channel = rollout_id.channel();
    let partition = app.backends.partition(&channel);
    let verdict = {
        let release = app.releases.current()?;
        let is_known = || app.known_rollouts.knows(partition, rollout_id);
        verdict(&release, (hostname, &channel, rollout_id), is_known)
    };
    let target = remote_lookup::ReportTarget {
        hostname,
        rollout_id,
        partition,
    };
    match verdict {
        Verdict::Admitted => {}
        Verdict::UnknownHost => return Err(remote_lookup::unknown_host(hostname, rollout_id)),
        // Boxed: nearly all requests do without.
        Verdict::LookUpHost => Box::pin(remote_lookup::look_up_host(app, target)).await?,
        Verdict::LookUpRollout => Box::pin(remote_lookup::look_up_rollout(app, target)).await?,
    }
    Ok(Admitted::new(hostname, rollout_id, partition))
}

fn verdict(
    release: &Current,
    (hostname, channel, rollout_id): (&Hostname, &ChannelName, &RolloutId),
    is_known: impl FnOnce() -> bool,
) -> Verdict {
    let is_named = release.host_channels().channel_of(hostname.as_str()) == Some(channel);
    let is_announced = release.rollouts.contains_key(rollout_id);
    match (is_announced, is_named) {
        (true, true) => Verdict::Admitted,
        (true, false) => Verdict::UnknownHost,
        (false, _) if !is_known() => Verdict::LookUpRollout,
        (false, true) => Verdict::Admitted,
        (false, false) => Verdict::LookUpHost,
    }
}
