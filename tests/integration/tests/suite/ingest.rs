//! The gateway as a process: who gets in, what is taken, what is refused, and that a 2xx means durable.

pub mod agents;
mod arrays;
pub mod gateway;
mod hostile;
mod operators;
pub mod pki;
mod releases;
