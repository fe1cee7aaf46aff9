//! The applier as a process, fed by a fold in the test.

mod fixture;
mod turns;
