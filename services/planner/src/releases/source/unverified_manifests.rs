//! Names of the rollout manifests of an unverified fleet.

use std::collections::BTreeMap;

use nixfleet_proto::fleet::Fleet;
use nixfleet_proto::{ChannelName, ChannelRef, RolloutId};
use nixfleet_trust::{ReleaseBundle, Signed};

/// Rollouts of an unverified fleet by channel. Text that is no fleet has none; verification reports
/// the fault. Names that could leave the source are dropped.
pub(super) fn rollouts_of(fleet: &[u8]) -> BTreeMap<ChannelName, RolloutId> {
    let Ok(fleet) = serde_json::from_slice::<Fleet>(fleet) else {
        return BTreeMap::new();
    };
    let commit = fleet.meta.ci_commit.as_deref().unwrap_or_default();
    let target_ref = ChannelRef::from(commit);
    let with_hosts = fleet
        .hosts
        .values()
        .filter(|host| host.closure_hash.is_some());
    with_hosts
        .filter_map(|host| {
            let rollout_id = RolloutId::new(&host.channel, &target_ref);
            let strict = RolloutId::parse_strict(rollout_id.as_str()).ok()?;
            Some((host.channel.clone(), strict))
        })
        .collect()
}

/// Bundles a fleet with the rollout manifests that were found.
pub(super) fn bundle_of(fleet: Signed, rollouts: BTreeMap<ChannelName, Signed>) -> ReleaseBundle {
    ReleaseBundle { fleet, rollouts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(channel: &str, commit: &str) -> Vec<u8> {
        serde_json::json!({
            "schemaVersion": 1,
            "hosts": {"a": {"system": "s", "tags": [], "channel": channel, "closureHash": "c",
                "pubkey": null}},
            "channels": {}, "waves": {},
            "meta": {"schemaVersion": 1, "signedAt": null, "ciCommit": commit},
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn manifests_are_named_after_channels_with_closures() {
        let rollouts = rollouts_of(&fleet("stable", "4f1c"));
        let id = &rollouts[&ChannelName::from("stable")];
        assert_eq!(id.as_str(), "stable@4f1c");
    }

    #[test]
    fn no_name_leaves_the_source() {
        assert!(rollouts_of(&fleet("../../etc", "4f1c")).is_empty());
        assert!(rollouts_of(&fleet("stable", "../4f")).is_empty());
        assert!(rollouts_of(b"{\"hosts\":").is_empty());
    }
}
