//! The rules of the agent as exact command lists.

mod bench;
mod dispatching;
mod healing;
mod lifecycle;
mod properties;
