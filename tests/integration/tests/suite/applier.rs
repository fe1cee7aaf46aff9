//! The applier as a process, fed by a fold in the test.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod fixture;
mod turns;
