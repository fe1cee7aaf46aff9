//! The view of the fleet: loaded from the database, kept up to date by the output logs.

pub mod load;
pub mod output_followers;
pub mod pinned_manifests;
