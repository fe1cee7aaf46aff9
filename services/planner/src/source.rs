//! Where signed releases come from. What comes out is unverified.

mod directory;
mod http;

use std::collections::BTreeMap;

use nixfleet_proto::fleet::Fleet;
use nixfleet_proto::{ChannelName, ChannelRef, RolloutId};
use nixfleet_trust::{ReleaseBundle, Signed, bundle};

use crate::config::SourceConfig;
use directory::Directory;
use http::Http;

/// Why there is no release to look at.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no fleet at the source.
    #[error("there is no {} at the source", bundle::FLEET_FILE)]
    Nothing,
    /// An artifact is over the limit.
    #[error("{artifact} is over the limit of {max} bytes")]
    TooLarge {
        /// Its path.
        artifact: String,
        /// Largest size.
        max: usize,
    },
    /// The source does not answer as it should.
    #[error("{artifact} cannot be fetched")]
    Unavailable {
        /// Its path.
        artifact: String,
        /// Why.
        #[source]
        source: anyhow::Error,
    },
}

impl SourceError {
    fn unavailable(artifact: &str, source: impl Into<anyhow::Error>) -> Self {
        Self::Unavailable {
            artifact: artifact.to_owned(),
            source: source.into(),
        }
    }
}

/// A directory or an HTTP server.
pub enum Source {
    /// A directory.
    Directory(Directory),
    /// An HTTP server.
    Http(Box<Http>),
}

impl Source {
    /// The configured source; `None` when releases only come through the gateway.
    ///
    /// # Errors
    /// When a file of the configuration cannot be used.
    pub fn new(config: &SourceConfig) -> anyhow::Result<Option<Self>> {
        if let Some(path) = &config.directory {
            let directory = Directory::new(path.clone(), config.artifact_max_bytes);
            return Ok(Some(Self::Directory(directory)));
        }
        if let Some(url) = &config.url {
            return Ok(Some(Self::Http(Box::new(Http::new(url, config)?))));
        }
        Ok(None)
    }

    /// Fetches the release; `None` when the source says that it has not changed.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn fetch(&mut self) -> Result<Option<ReleaseBundle>, SourceError> {
        match self {
            Self::Directory(directory) => directory.fetch().await.map(Some),
            Self::Http(http) => http.fetch().await,
        }
    }

    /// Makes the next fetch a full one: what was fetched last is not what was accepted.
    pub fn forget(&mut self) {
        match self {
            Self::Directory(_) => {}
            Self::Http(http) => http.forget(),
        }
    }
}

/// The rollout manifests that belong to a fleet nobody has verified yet. Text that is no fleet has
/// none; verification says what is wrong with it. Names that could leave the source are left out.
fn rollouts_of(fleet: &[u8]) -> BTreeMap<ChannelName, RolloutId> {
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

/// A bundle of the fleet and whichever of its rollout manifests were there.
fn bundle_of(fleet: Signed, rollouts: BTreeMap<ChannelName, Signed>) -> ReleaseBundle {
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
