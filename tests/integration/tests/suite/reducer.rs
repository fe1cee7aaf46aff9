//! The reducer as a process, held against the pure fold of the same log.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod ahead;
mod fixture;
mod ownership;
mod recovery;
