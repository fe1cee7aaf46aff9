//! Ownership of a partition: taking it over, being its owner, and why that ends.

pub mod checkpoint_schedule;
pub mod end;
pub mod owner;
pub mod readiness;
pub mod takeover;
