//! Properties that hold for arbitrary bytes; one function per target, shared by the fuzzer and by the test
//! that replays the seeds.

mod targets;

pub use targets::*;
