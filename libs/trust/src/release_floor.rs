//! The floor of accepted releases: what may replace the release that was accepted last.
//!
//! The bus may announce any release that was ever signed. Whoever follows announcements takes a release only
//! through [`ReleaseFloor::raise`], which applies the comparison of [`crate::admit`].

use nixfleet_proto::RolloutId;

use crate::admission::{Fault, compare};
use crate::release::{AcceptedRelease, Release};

/// The newest release that was accepted, as far as it is remembered.
#[derive(Debug, Clone, Default)]
pub struct ReleaseFloor {
    accepted: Option<AcceptedRelease>,
}

/// A release that was not below the floor. [`ReleaseFloor::raise`] is the only constructor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest(AcceptedRelease);

/// A release is below the floor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the release is not newer: {}", reasons(faults))]
pub struct NotNewer {
    /// At least one.
    pub faults: Vec<Fault>,
}

fn reasons(faults: &[Fault]) -> String {
    let reasons: Vec<String> = faults.iter().map(Fault::to_string).collect();
    reasons.join("; ")
}

impl ReleaseFloor {
    /// The release that was accepted last.
    pub fn accepted(&self) -> Option<&AcceptedRelease> {
        self.accepted.as_ref()
    }

    /// Accepts a release that is newer than the accepted one, or equal to it, and none of whose rollouts was
    /// ever superseded: that is recorded with the rollouts and outlives every process.
    ///
    /// # Errors
    /// Every reason why the release is older.
    pub fn raise(
        &mut self,
        release: &Release,
        is_superseded: &dyn Fn(&RolloutId) -> bool,
    ) -> Result<Newest, NotNewer> {
        let faults = compare(release, self.accepted.as_ref(), is_superseded);
        if !faults.is_empty() {
            return Err(NotNewer { faults });
        }
        let accepted = release.accepted();
        self.accepted = Some(accepted.clone());
        Ok(Newest(accepted))
    }
}

impl Newest {
    /// The form for comparison with later releases.
    pub fn accepted(&self) -> &AcceptedRelease {
        &self.0
    }
}

#[cfg(test)]
mod tests;
