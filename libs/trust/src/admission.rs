//! Admission: checks a verified release before it becomes the accepted one.
//!
//! Source: docs/semantics.md, admission.

mod edge_cycles;
mod fault;
mod fleet_checks;
mod manifest_checks;
mod text_checks;

use nixfleet_proto::RolloutId;

pub use fault::{AdmissionError, FAULTS_MAX, Fault, Findings, Notice};
pub(crate) use fleet_checks::refuse_edges_across_channels;
pub use fleet_checks::{FRESHNESS_MINUTES_MAX, SOAK_MINUTES_MAX, WAVES_MAX, check_fleet};
pub(crate) use text_checks::check_free_value;

use crate::release::{AcceptedRelease, Release};
use crate::verify::Verified;

/// A release that may become the accepted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Notices for people; reject nothing.
    pub notices: Vec<Notice>,
    /// True when the content equals that of the accepted release: only the freshness is renewed.
    pub renewed: bool,
}

/// Checks a verified release against the accepted one and the rules of a complete fleet.
///
/// `is_superseded` tells whether a rollout was ever superseded.
///
/// # Errors
/// All faults, up to [`FAULTS_MAX`].
pub fn admit(
    release: &Release,
    accepted: Option<&AcceptedRelease>,
    is_superseded: &dyn Fn(&RolloutId) -> bool,
) -> Result<Admission, AdmissionError> {
    let mut findings = Findings::default();
    let fleet = release.fleet().payload();
    check_fleet(fleet, &mut findings);
    let rollouts = release.rollouts().values();
    manifest_checks::check_manifests(fleet, rollouts.map(Verified::payload), &mut findings);
    for fault in compare(release, accepted, is_superseded) {
        findings.fault(fault);
    }
    let notices = findings.into_result()?;
    Ok(Admission {
        notices,
        renewed: accepted.is_some_and(|accepted| accepted.content == *release.content()),
    })
}

/// Whether a release is newer than the accepted one, or equal to it: signed later, no known commit with other
/// content, no rollout that was superseded. Returns every reason against it.
pub(crate) fn compare(
    release: &Release,
    accepted: Option<&AcceptedRelease>,
    is_superseded: &dyn Fn(&RolloutId) -> bool,
) -> Vec<Fault> {
    let mut faults = accepted.map_or_else(Vec::new, |accepted| compare_content(release, accepted));
    let ids = release.content().rollouts.values().map(|(id, _)| id);
    let superseded = ids.filter(|id| is_superseded(id));
    faults.extend(superseded.map(|rollout_id| Fault::Superseded {
        rollout_id: rollout_id.clone(),
    }));
    faults
}

fn compare_content(release: &Release, accepted: &AcceptedRelease) -> Vec<Fault> {
    let mut faults = Vec::new();
    let content = release.content();
    let signed_at = release.signed_at();
    // Of two releases with one time of signing neither is newer: each could replace the other for ever.
    let is_other = *content != accepted.content;
    if signed_at < accepted.signed_at || (signed_at == accepted.signed_at && is_other) {
        faults.push(Fault::Older {
            signed_at,
            accepted: accepted.signed_at,
        });
    }
    for (channel, (rollout_id, hash)) in &content.rollouts {
        if let Some((accepted_id, accepted_hash)) = accepted.content.rollouts.get(channel)
            && accepted_id == rollout_id
            && accepted_hash != hash
        {
            faults.push(Fault::RefReused {
                artifact: format!("rollout manifest {rollout_id}"),
            });
        }
    }
    let commit = &release.fleet().payload().meta.ci_commit;
    if let Some(commit) = commit
        && accepted.commit.as_ref() == Some(commit)
        && accepted.content.fleet != content.fleet
    {
        faults.push(Fault::RefReused {
            artifact: format!("fleet of {commit}"),
        });
    }
    faults
}

#[cfg(test)]
mod tests;
