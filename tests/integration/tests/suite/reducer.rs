//! Reducer processes, compared with the pure fold of the same log.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod heartbeat_recovery;
mod manifest_prefetch;
mod misdated_entries;
mod ownership;
mod partition_log;
