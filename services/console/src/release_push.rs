//! Taking over a release that a pipeline or a person pushes.
//!
//! The same verification and admission as for polled releases. The announcement is the commit point:
//! it names the sequence of the release it follows, so a push and a poll cannot cross.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use nixfleet_bus::{NewestAnnouncement, PublishError};
use nixfleet_http::{Announced, ApiError, Artifact, Artifacts, Identity, now, require_channel};
use nixfleet_proto::fleet::ReleaseAnnouncement;
use nixfleet_proto::{ChannelName, RolloutId};
use nixfleet_trust::{AdmissionError, Release, ReleaseBundle, ReleaseError, admit, verify_release};
use serde::Serialize;

use crate::app_state::App;

/// Attempts when other releases are announced at the same moment.
const ATTEMPTS: u32 = 3;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    accepted: bool,
    /// True when the release says what the accepted one said.
    renewed: bool,
    /// What a person may want to look at.
    notices: Vec<serde_json::Value>,
}

/// Verifies, admits, stores and announces a release. Pushing the current release again is accepted
/// and changes nothing.
///
/// # Errors
/// 422 with all faults when it is refused, 403 when it changes rollouts of channels that the certificate is
/// not for, 503 when something needed is away, 409 when other releases keep coming first.
pub async fn push(
    app: &App,
    identity: &Identity,
    bundle: ReleaseBundle,
) -> Result<Accepted, ApiError> {
    let artifacts = Arc::new(verify(app, bundle).await?);
    let release = &artifacts.release;
    for _ in 0..ATTEMPTS {
        let newest = app.releases.store().newest().await;
        let newest = newest
            .map_err(|error| ApiError::unavailable("log-unavailable", error.to_string(), 2))?;
        let (expected, announcement) = (newest.last_seq, release.announcement());
        let before = newest_verified(app, newest).await?;
        let current = before.as_ref().map(|before| &before.artifacts.release);
        let announced = current.map(Release::announcement);
        let is_current = before.as_ref().is_some_and(|before| before.seq == expected);
        if is_current && announced.as_ref() == Some(&announcement) {
            // Restores objects that were lost or damaged since.
            store(app, &artifacts).await?;
            return Ok(accepted(true, Vec::new()));
        }
        check_channels(identity, announced.as_ref(), &announcement)?;
        let superseded = superseded(app, release).await?;
        let compared = current.map(Release::accepted);
        let admission = admit(release, compared.as_ref(), &|id| superseded.contains(id))
            .map_err(|error| refused(&error))?;
        store(app, &artifacts).await?;
        app.releases.push(&artifacts);
        match app.releases.store().announce(&announcement, expected).await {
            Ok(seq) => {
                let (signed_at, renewed) = (release.signed_at(), admission.renewed);
                tracing::info!(seq, %signed_at, renewed, "a pushed release was announced");
                let notices = admission.notices.iter().map(as_json).collect();
                let artifacts = Arc::clone(&artifacts);
                let announced = Announced { seq, artifacts };
                if let Err(error) = app.releases.install(announced).await {
                    // The follower takes it, or a later one.
                    tracing::debug!(seq, %error, "the pushed release is not current yet");
                }
                return Ok(accepted(renewed, notices));
            }
            Err(PublishError::Fenced { .. }) => {}
            Err(error) => {
                return Err(ApiError::unavailable(
                    "log-unavailable",
                    error.to_string(),
                    2,
                ));
            }
        }
    }
    Err(ApiError::refused(
        StatusCode::CONFLICT,
        "release-crossed",
        "other releases were announced meanwhile, look at the current one first",
    ))
}

/// A certificate with a channel limit may push a release that opens or ends rollouts of its channels alone.
fn check_channels(
    identity: &Identity,
    current: Option<&ReleaseAnnouncement>,
    next: &ReleaseAnnouncement,
) -> Result<(), ApiError> {
    let rollout = |release: &ReleaseAnnouncement, channel: &ChannelName| {
        let rollout = release.rollouts.get(channel);
        rollout.map(|rollout| rollout.rollout_id.clone())
    };
    let before = current
        .into_iter()
        .flat_map(|release| release.rollouts.keys());
    before
        .chain(next.rollouts.keys())
        .filter(|channel| {
            current.and_then(|current| rollout(current, channel)) != rollout(next, channel)
        })
        .try_for_each(|channel| require_channel(identity, channel))
}

async fn verify(app: &App, bundle: ReleaseBundle) -> Result<Artifacts, ApiError> {
    let trust = app.releases.trust().await;
    let trust =
        trust.map_err(|error| ApiError::internal("reading trust", &format!("{error:#}")))?;
    let minutes = app.config.releases.freshness_minutes;
    let window = Duration::from_secs(minutes.saturating_mul(60));
    let verified = tokio::task::spawn_blocking(move || {
        verify_release(&bundle, &trust, now(), window)
            .map(|release| Artifacts::new(release, bundle))
    });
    match verified.await {
        Ok(verified) => verified.map_err(unbelievable),
        Err(error) => Err(ApiError::internal("verifying a release", &error)),
    }
}

/// What the new release is compared with. An announcement that is refused here keeps no release out.
async fn newest_verified(
    app: &App,
    newest: NewestAnnouncement,
) -> Result<Option<Announced>, ApiError> {
    app.releases.newest_verified(newest).await.map_err(|error| {
        let error = format!("{:#}", anyhow::Error::new(error));
        ApiError::unavailable("artifacts-unavailable", error, 5)
    })
}

async fn superseded(app: &App, release: &Release) -> Result<BTreeSet<RolloutId>, ApiError> {
    let ids = release.content().rollouts.values().map(|(id, _)| id);
    let ids: Vec<RolloutId> = ids.cloned().collect();
    Ok(app.backends.store.superseded_rollouts(&ids).await?)
}

async fn store(app: &App, artifacts: &Artifacts) -> Result<(), ApiError> {
    for Artifact { hash, bytes, .. } in artifacts.all() {
        let stored = app.releases.store().put(hash, bytes.clone()).await;
        stored.map_err(|error| {
            ApiError::unavailable("artifacts-unavailable", error.to_string(), 5)
        })?;
    }
    Ok(())
}

fn accepted(renewed: bool, notices: Vec<serde_json::Value>) -> Accepted {
    Accepted {
        accepted: true,
        renewed,
        notices,
    }
}

/// A part of the release that does not verify.
fn unbelievable(error: ReleaseError) -> ApiError {
    let name = error.name();
    count(name);
    let message = format!("{:#}", anyhow::Error::new(error));
    let fault = serde_json::json!({ "code": name, "message": message });
    refusal(message).with_faults(vec![fault])
}

/// A release that verifies and must not be accepted.
fn refused(error: &AdmissionError) -> ApiError {
    for fault in &error.faults {
        count(fault.name());
    }
    let faults = error.faults.iter().map(as_json).collect();
    let more = error.faults.len() + error.omitted;
    refusal(format!("the release has {more} fault(s)")).with_faults(faults)
}

fn refusal(message: String) -> ApiError {
    tracing::warn!(message, "a pushed release was refused");
    ApiError::refused(StatusCode::UNPROCESSABLE_ENTITY, "release-refused", message)
}

fn count(fault: &'static str) {
    metrics::counter!("nixfleet_manifest_refusals_total", "fault" => fault).increment(1);
}

fn as_json(finding: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(finding).unwrap_or(serde_json::Value::Null)
}
