//! The rules of the agent as exact command lists.

mod dispatching;
mod fixture;
mod lifecycle;
mod properties;
mod recovery;
