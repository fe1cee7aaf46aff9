//! Restores the announced release from the archive after the bus lost its data.

use anyhow::Context as _;
use bytes::Bytes;
use nixfleet_bus::{Bus, PublishError};
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_store::Store;

/// Announces the last archived release again when none is announced, so that it need not be pushed
/// a second time. Like every announcement, it is verified before it is accepted.
///
/// # Errors
/// When a server does not answer.
pub async fn restore_release(bus: &Bus, store: &Store) -> anyhow::Result<()> {
    let manifests = bus.manifests();
    let newest = manifests.newest().await;
    let newest = newest.context("reading the announced release")?;
    if newest.release.is_some() {
        return Ok(());
    }
    let stream = bus.names().manifest_stream();
    let archived = store.last_archived_release(&stream).await;
    let Some(json) = archived.context("reading the archived release")? else {
        return Ok(());
    };
    let Ok(release) = serde_json::from_str::<ReleaseAnnouncement>(&json) else {
        tracing::warn!("the last archived release cannot be parsed; publish it again");
        return Ok(());
    };
    let rollouts = release.rollouts.values();
    let rollouts = rollouts.map(|rollout| &rollout.artifact.hash);
    for hash in std::iter::once(&release.fleet.hash).chain(rollouts) {
        let found = store.artifact(hash).await;
        let Some(bytes) = found.context("reading an archived artifact")? else {
            tracing::warn!(%hash, "an artifact of the last release is not archived; publish it again");
            return Ok(());
        };
        manifests.put(hash, Bytes::from(bytes)).await?;
    }
    match manifests.announce(&release, newest.last_seq).await {
        Ok(seq) => {
            tracing::warn!(
                seq,
                "the announced release was lost; announced it again from the archive"
            );
            Ok(())
        }
        // Another release was announced meanwhile.
        Err(PublishError::Fenced { .. }) => Ok(()),
        Err(error) => Err(error).context("announcing the archived release"),
    }
}
