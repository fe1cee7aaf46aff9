//! Trust: canonical JSON, signatures, trust files, verification of artifacts and releases, admission, and
//! pinned terms of rollouts.
//!
//! Pure: the caller supplies time, keys and bytes. Must never know the bus, the database or the file
//! system. Start reading at [`verify()`], the only constructor of [`Verified`], then [`verify_release`] and
//! [`admit`], and [`pin`], which the fold uses.

mod admission;
mod announced_release;
mod artifact;
mod canonical_json;
mod illegal_hostnames;
mod keys;
mod operator_command;
mod parallel;
mod pinning;
mod release;
mod release_build;
pub mod release_bundle;
mod release_floor;
mod rollout_manifest;
mod selector_matcher;
pub mod sign;
mod sorted_lookup;
#[cfg(test)]
mod test_release;
mod trust_file;
mod verify;

pub use admission::{
    Admission, AdmissionError, FAULTS_MAX, FRESHNESS_MINUTES_MAX, Fault, Findings, Notice,
    SOAK_MINUTES_MAX, WAVES_MAX, admit, check_fleet,
};
pub use announced_release::{AnnouncedReleaseError, verify_announced};
pub use artifact::{ALL_AT_ONCE, Artifact};
pub use canonical_json::{
    ARTIFACT_BYTES_MAX, CanonicalizeError, DEPTH_MAX, NumberFault, canonical_hash, canonicalize,
};
pub use keys::{ActiveKeys, Algorithm, KeyError, SIGNATURE_BYTES, TrustedKey};
pub use operator_command::{ConsoleKeys, ConsoleKeysError, sign_command};
pub use pinning::{PinError, UnpinnedManifest, pin, pin_verified};
pub use release::{
    AcceptedRelease, Release, ReleaseContent, ReleaseError, ReleaseFault, verify_manifest,
    verify_release,
};
pub use release_build::{BuiltRelease, ReleaseStamp, build_release};
pub use release_bundle::{
    BorrowedText, BundleError, ReleaseBundle, ReleaseUpload, Signed, SignedUpload,
};
pub use release_floor::{Newest, NotNewer, ReleaseFloor};
pub use rollout_manifest::{ProjectError, project, project_all};
pub use trust_file::{KeySlot, TrustFile, TrustFileError, TrustNotice, TrustNoticeKind};
pub use verify::{CLOCK_SLACK, Freshness, Verified, VerifyError, verify};
