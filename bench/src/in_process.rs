//! Stages that need no server: one thread, its processor time.

mod applied_rows;
pub mod checkpoint;
pub mod encoding;
pub mod fold;
pub mod growth;
pub mod planner;
