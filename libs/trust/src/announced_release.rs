//! The only way from an announcement and its objects to a verified release.

use std::time::Duration;

use nixfleet_proto::Timestamp;
use nixfleet_proto::fleet::ReleaseAnnouncement;

use crate::release::{Release, ReleaseError, verify_release};
use crate::release_bundle::{BundleError, ReleaseBundle};
use crate::trust_file::TrustFile;

/// Why an announced release is refused. None of these is an outage: the bus has answered.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncedReleaseError {
    /// The bus does not hold an object as it was announced.
    #[error("an object cannot be used: {0}")]
    Object(String),
    /// The announcement and its objects are no bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle does not verify.
    #[error(transparent)]
    Release(#[from] ReleaseError),
}

impl AnnouncedReleaseError {
    /// Name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Object(_) => "ObjectUnusable",
            Self::Bundle(error) => error.name(),
            Self::Release(error) => error.name(),
        }
    }
}

/// Verifies an announced release, whatever its age: it was fresh when it was admitted. `objects` are those of
/// [`ReleaseAnnouncement::artifacts`], in that order, or why one cannot be used.
///
/// # Errors
/// [`AnnouncedReleaseError`].
///
/// Source: docs/manifests.md, verification.
pub fn verify_announced(
    announcement: &ReleaseAnnouncement,
    objects: Result<Vec<Vec<u8>>, String>,
    trust: &TrustFile,
    now: Timestamp,
) -> Result<(Release, ReleaseBundle), AnnouncedReleaseError> {
    let objects = objects.map_err(AnnouncedReleaseError::Object)?;
    let bundle = ReleaseBundle::assemble(announcement, objects.into_iter().map(Some))?;
    let release = verify_release(&bundle, trust, now, Duration::MAX)?;
    Ok((release, bundle))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_release::{bundle, now, trust, verified};

    #[test]
    fn an_announcement_is_refused_by_the_name_of_its_fault() {
        let bundle = bundle();
        let announcement = verified(&bundle).announcement();
        let objects = || -> Vec<Vec<u8>> {
            let release = verified(&bundle);
            let objects = release.objects(&bundle);
            objects.map(|(_, bytes)| bytes.to_vec()).collect()
        };
        let judged = |announcement, objects| {
            verify_announced(announcement, objects, &trust(), now())
                .map(|(release, _)| release)
                .map_err(|error| error.name())
        };
        let release = judged(&announcement, Ok(objects()));
        assert_eq!(release, Ok(verified(&bundle)));
        let lost = Err("artifact 0a is not in the object store".to_owned());
        assert_eq!(judged(&announcement, lost), Err("ObjectUnusable"));
        let fewer = objects().into_iter().take(1).collect();
        assert_eq!(judged(&announcement, Ok(fewer)), Err("ObjectUnusable"));
        let mut other = announcement.clone();
        other.fleet.signature = "%".to_owned();
        assert_eq!(judged(&other, Ok(objects())), Err("NotBase64"));
        let swapped = objects().into_iter().rev().collect();
        assert_eq!(judged(&announcement, Ok(swapped)), Err("BadSignature"));
    }
}
