//! Logs are bounded and trimmed: whatever passes through them, they do not fill, and what they no longer
//! hold is not lost.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod agents;
mod database_dropped;
mod fleet;
mod gateway_restart;
mod log_full;
mod observer;
mod releases;
mod world;
