//! Ownership of a partition: taking it over, being its owner, and why that ends.

pub mod checkpoint_schedule;
pub mod owner;
pub mod ownership_end;
pub mod readiness;
pub mod takeover;
