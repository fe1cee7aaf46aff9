//! Invariants, one file each, written from docs/semantics.md and not from the code that they check.

pub mod acknowledged;
pub mod budgets;
pub mod clocks;
pub mod cursors;
pub mod duplicates;
pub mod edges;
pub mod epochs;
pub mod folded_entry;
pub mod freshness;
pub mod halts;
pub mod leaders;
pub mod leases;
pub mod lost_tails;
pub mod progress;
pub mod recoveries;
pub mod replay;
pub mod retention;
pub mod rows;
pub mod waves;
