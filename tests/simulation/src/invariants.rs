//! What must hold, one file each; written from docs/semantics.md and not from the code it judges.

pub mod acknowledged;
pub mod budgets;
pub mod cursors;
pub mod edges;
pub mod epochs;
pub mod fact;
pub mod freshness;
pub mod halts;
pub mod leaders;
pub mod leases;
pub mod once;
pub mod progress;
pub mod recoveries;
pub mod retention;
pub mod rows;
pub mod stands;
pub mod tails;
pub mod waves;
