//! Does what the core says: files, connections, clocks, pauses.
//!
//! Start reading at [`Agent::run`].

pub mod client;
pub mod fetch;
mod gateways;
pub mod run;
pub mod tls;

pub use client::{Client, ClientError, Link};
pub use fetch::Shared;
pub use run::{Agent, AgentError, Counted, Observer, Parts};
