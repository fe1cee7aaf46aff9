//! A manifest that was not signed again in time blocks: a newer one may be withheld.

use nixfleet_proto::{ChannelName, Gate, Timestamp};

use super::{Block, Candidate};
use crate::view::FleetView;

/// Holds every host of a channel whose manifest is older than the channel's window plus a minute.
///
/// # Errors
/// The block; also when the channel, its manifest or the time of signing is unknown.
///
/// Source: docs/semantics.md, gate `freshness`.
pub fn check(view: &FleetView, candidate: &Candidate<'_>) -> Result<(), Block> {
    check_channel(view, &candidate.rollout.record.channel, candidate.now)
}

/// The same for a channel; also decides whether its rollout opens.
pub fn check_channel(view: &FleetView, channel: &ChannelName, now: Timestamp) -> Result<(), Block> {
    let release = view.release();
    let fresh_until = release.and_then(|release| release.fresh_until(channel));
    let reason = match fresh_until {
        Some(until) if now <= until => return Ok(()),
        Some(until) => format!("freshness: manifest of channel '{channel}' expired at {until}"),
        None => format!("freshness: unknown age of the manifest of channel '{channel}'"),
    };
    Err(Block::new(Gate::Freshness, reason))
}

#[cfg(test)]
mod tests {
    use super::super::test_fleet::Fixture;
    use super::*;

    #[test]
    fn a_manifest_is_fresh_for_its_window_and_a_minute() {
        for (minutes, seconds, held) in [(0, 0, false), (61, 0, false), (61, 1, true)] {
            let reason = Fixture::new()
                .at(minutes, seconds)
                .reason(Gate::Freshness, "a");
            assert_eq!(reason.is_some(), held, "{minutes} min {seconds} s");
        }
    }

    #[test]
    fn an_unknown_age_holds() {
        for fixture in [
            Fixture::new().without_manifest("stable"),
            Fixture::new().without_channel("stable"),
        ] {
            let reason = fixture.reason(Gate::Freshness, "a").unwrap();
            assert_eq!(
                reason,
                "freshness: unknown age of the manifest of channel 'stable'"
            );
        }
    }
}
