//! The gateway for people and pipelines as a process: views, commands, pushed releases.

mod operators;
mod releases;
