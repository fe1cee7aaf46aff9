//! Deterministic simulation: the real cores of every service and of the agents in one thread, in
//! virtual time, on a model log and a model database, with faults from a seed.
//!
//! Knows every core and no shell: no runtime, no socket, no clock, no random source but its own.
//! Start reading at [`scenario`] (what a seed stands for), then [`simulation`] (what happens),
//! [`invariants`] (what must hold) and [`engine`] (what makes a run repeatable).

pub mod addressing;
pub mod byzantine;
pub mod campaign;
pub mod engine;
pub mod gateway_messages;
pub mod invariant_monitor;
pub mod invariants;
pub mod mutants;
pub mod reference_fold;
pub mod run;
pub mod scenario;
pub mod seed_threads;
pub mod services;
pub mod shrink;
pub mod signed_release;
pub mod simulated_console;
pub mod simulated_servers;
pub mod simulation;
