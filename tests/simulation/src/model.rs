//! The servers as models: what they promise, and what they do when they break.

pub mod log;
