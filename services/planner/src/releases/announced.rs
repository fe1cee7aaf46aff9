//! Following the announcements.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nixfleet_bus::ManifestStore;
use nixfleet_plan::release::ChannelManifest;
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_trust::{Release, ReleaseBundle, ReleaseError, verify_release};
use tokio::sync::watch;

use super::{Current, Known, Refusals, Trust, now};

/// Pause before an announcement is tried again when something did not answer.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(2);
/// Pause when it was refused: only another trust file or release can help.
const RETRY_REFUSED: Duration = Duration::from_secs(15);

/// Why an announced release is not taken over.
enum Failure {
    Unavailable(anyhow::Error),
    Refused(ReleaseError),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Unavailable(error)
    }
}

/// The task that follows.
pub struct Announced {
    store: ManifestStore,
    trust: Trust,
    know: watch::Sender<Known>,
    refusals: Refusals,
}

impl Announced {
    pub fn new(store: ManifestStore, trust: Trust, know: watch::Sender<Known>) -> Self {
        Self {
            store,
            trust,
            know,
            refusals: Refusals::default(),
        }
    }

    /// Takes over every announced release that verifies; never ends.
    pub async fn run(mut self) {
        let mut announcements = self.store.follow();
        let mut again: Option<(Duration, u64, ReleaseAnnouncement)> = None;
        loop {
            let pause = again.as_ref().map(|(pause, _, _)| *pause);
            let next = tokio::select! {
                next = announcements.next() => Some(next),
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => None,
            };
            let (seq, announcement) = match (next, again.take()) {
                (Some(Ok(next)), _) => next,
                (Some(Err(error)), before) => {
                    tracing::warn!(
                        error = format!("{:#}", anyhow::Error::from(error)),
                        "announcements cannot be followed"
                    );
                    again = before;
                    tokio::time::sleep(RETRY_UNAVAILABLE).await;
                    continue;
                }
                (None, Some((_, seq, announcement))) => (seq, announcement),
                (None, None) => continue,
            };
            let retry = self.take_over(seq, &announcement).await;
            again = retry.map(|pause| (pause, seq, announcement));
        }
    }

    async fn take_over(
        &mut self,
        seq: u64,
        announcement: &ReleaseAnnouncement,
    ) -> Option<Duration> {
        match self.load(announcement).await {
            Ok(release) => {
                self.refusals.forget();
                tracing::info!(seq, signed_at = %release.signed_at(), "release");
                let current = Some(Arc::new(Current {
                    seq,
                    accepted: release.accepted(),
                    release: planned(&release),
                }));
                self.know.send_replace(Known {
                    current,
                    refused_seq: None,
                });
                None
            }
            Err(Failure::Unavailable(error)) => {
                tracing::warn!(
                    seq,
                    error = format!("{error:#}"),
                    "release cannot be loaded"
                );
                Some(RETRY_UNAVAILABLE)
            }
            Err(Failure::Refused(error)) => {
                let fault = error.name().to_owned();
                let text = format!("{:#}", anyhow::Error::from(error));
                let what = format!("the announced release {seq}");
                self.refusals.say(&what, &[fault], text);
                self.know.send_modify(|known| known.refused_seq = Some(seq));
                Some(RETRY_REFUSED)
            }
        }
    }

    /// Age is no matter here: it was fresh when it was accepted, and the gates see it age.
    async fn load(&self, announcement: &ReleaseAnnouncement) -> Result<Release, Failure> {
        let mut objects = BTreeMap::new();
        let rollouts = announcement.rollouts.values();
        let artifacts = rollouts.map(|rollout| &rollout.artifact);
        for artifact in std::iter::once(&announcement.fleet).chain(artifacts) {
            let bytes = self.store.get(&artifact.hash).await;
            if let Some(bytes) = bytes.map_err(anyhow::Error::from)? {
                objects.insert(artifact.hash.clone(), bytes.to_vec());
            }
        }
        let bundle =
            ReleaseBundle::assemble(announcement, &objects).map_err(anyhow::Error::from)?;
        let trust = self.trust.read().await?;
        // Canonicalising a large fleet takes long enough to make other tasks wait.
        let verified = tokio::task::spawn_blocking(move || {
            verify_release(&bundle, &trust, now(), Duration::MAX)
        });
        let verified = verified.await.map_err(anyhow::Error::from)?;
        verified.map_err(Failure::Refused)
    }
}

/// The same release in the form plans read.
fn planned(release: &Release) -> nixfleet_plan::Release {
    let manifests = release.rollouts().iter().map(|(channel, manifest)| {
        let of_channel = ChannelManifest {
            manifest: Arc::new(manifest.payload().clone()),
            hash: manifest.hash().clone(),
        };
        (channel.clone(), of_channel)
    });
    let manifests = manifests.collect();
    nixfleet_plan::Release::new(Arc::new(release.fleet().payload().clone()), manifests)
}
