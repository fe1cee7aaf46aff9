//! The rules of the agent as exact command lists.

mod dispatching;
mod lifecycle;
mod properties;
mod restart;
pub(crate) mod test_agent;
