//! What must hold for any bytes at all; one function per target, shared by the fuzzer and by the test
//! that runs the seeds.

mod targets;

pub use targets::*;
