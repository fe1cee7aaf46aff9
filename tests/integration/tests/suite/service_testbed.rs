//! What the suites of single services share: bus and database of a test, service processes, and a
//! signed release.

// Helpers of tests may panic like the tests themselves.
#![cfg(test)]

pub mod service_process;
pub mod signed_release;
pub mod test_servers;
