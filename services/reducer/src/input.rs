//! From the input log to the state: items, the manifests they name, and the fold.

pub mod fold;
pub mod input_item;
pub mod pinned_manifests;
