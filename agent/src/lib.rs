//! The agent: what runs on a host.
//!
//! [`core`] decides: a synchronous state machine of inputs, commands and time, which uses the same host
//! machine as the control plane. [`shell`] executes its commands over mTLS. Without the feature `shell`
//! only the core and the checks of a signed release are compiled. Must never know: streams, tables, the
//! planner. Start reading at [`core::AgentCore`].

pub mod activation_guard;
#[cfg(feature = "shell")]
pub mod activator;
pub mod admitted_closure;
pub mod agent_memory;
pub mod artifact_verifier;
pub mod core;
#[cfg(feature = "shell")]
pub mod journal_store;
pub mod release_check;
#[cfg(feature = "shell")]
pub mod shell;

pub use admitted_closure::AdmittedClosure;
