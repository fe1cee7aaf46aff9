//! Logs are bounded and trimmed: they do not fill, and trimmed messages are not lost.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod database_dropped;
mod gateway_restart;
mod log_full;
mod many_releases;
mod running_agents;
mod sampler;
mod testbed;
mod three_wave_fleet;
