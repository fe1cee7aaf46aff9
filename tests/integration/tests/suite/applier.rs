//! Applier processes on the output log of a fold in the test.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

mod published_fold;
mod turns;
