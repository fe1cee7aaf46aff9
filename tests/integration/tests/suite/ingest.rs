//! The gateway as a process: who gets in, what is taken, what is refused, and that a 2xx means durable.

mod agents;
mod arrays;
mod gateway;
mod hostile;
mod operators;
mod pki;
mod releases;
