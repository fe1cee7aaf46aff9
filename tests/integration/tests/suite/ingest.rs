//! The gateway for agents as a process: its clients, its answers, its refusals, and that a 2xx means durable.

pub mod agents;
mod arrays;
mod artifacts;
mod hostile;
