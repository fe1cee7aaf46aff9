//! The rules of the agent as exact command lists.

mod dispatching;
mod lifecycle;
mod properties;
mod restart;
mod test_agent;
