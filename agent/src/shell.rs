//! Executes the commands of the core: files, connections, clocks, timers.
//!
//! Start reading at [`Agent::run`].

pub mod client;
mod gateway_selector;
pub mod release_fetcher;
pub mod run;
pub mod tls;

pub use client::{Client, ClientError, NetworkLink};
pub use release_fetcher::ReleaseFetcher;
pub use run::{Agent, AgentError, AgentParts, Counter, Observer};
