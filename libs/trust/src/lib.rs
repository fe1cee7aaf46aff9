//! What is believed and why: canonical JSON, signatures, trust files, the verification of artifacts,
//! releases and their admission, and what a rollout pins.
//!
//! Pure: time and keys are arguments, bytes come from the caller. Knows no bus, no database and no
//! file system. Start reading at [`verify()`], the one way to a [`Verified`] value, then [`verify_release`]
//! and [`admit`], which make a release out of artifacts, and [`pin`], which the fold uses.

mod admission;
mod artifact;
mod beside;
mod build;
pub mod bundle;
mod canonical;
#[cfg(test)]
mod fixtures;
mod keys;
mod projection;
mod release;
mod selector;
pub mod sign;
mod sorted;
mod trust_file;
mod verify;

pub use admission::{
    Admission, AdmissionError, FAULTS_MAX, FRESHNESS_MINUTES_MAX, Fault, Findings,
    HOSTNAME_BYTES_MAX, Notice, SOAK_MINUTES_MAX, WAVES_MAX, admit, check_fleet,
};
pub use artifact::{ALL_AT_ONCE, Artifact};
pub use build::{BuiltRelease, Stamp, build_release};
pub use bundle::{BundleError, InPlace, ReleaseBundle, ReleaseUpload, Signed, SignedUpload};
pub use canonical::{
    ARTIFACT_BYTES_MAX, CanonicalizeError, DEPTH_MAX, NumberFault, canonical_hash, canonicalize,
};
pub use keys::{ActiveKeys, Algorithm, KeyError, SIGNATURE_BYTES, TrustedKey};
pub use projection::{PinError, ProjectError, Unpinned, pin, pin_verified, project, project_all};
pub use release::{
    AcceptedRelease, Release, ReleaseContent, ReleaseError, ReleaseFault, verify_manifest,
    verify_release,
};
pub use trust_file::{KeySlot, TrustFile, TrustFileError, TrustNotice, TrustNoticeKind};
pub use verify::{CLOCK_SLACK, Freshness, Verified, VerifyError, verify};
