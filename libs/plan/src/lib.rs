//! The planner core: computes actions and reports from a view of the fleet and a time.
//!
//! Pure: no clock, no IO, no randomness. Plans are level-triggered, so that a lost plan is computed again.
//! The cost depends on waiting hosts and due claims, not on the size of the fleet: [`view::FleetView`]
//! indexes the hosts that a plan must check, and hosts that are equal for every gate are checked as one
//! group.
//!
//! Start reading at [`plan`] (order of a run), then [`gates`] (reasons to hold a host) and [`view`]
//! (input).
//!
//! Source: docs/semantics.md, plan.

pub mod awaited_step;
pub mod gates;
pub mod host_report;
pub mod json_case;
pub mod plan;
pub mod release;
pub mod view;

pub use awaited_step::AwaitedStep;
pub use gates::{Block, Candidate};
pub use host_report::HostReport;
pub use plan::{ACTIONS_MAX, Plan, RETENTION_DAYS, explain, plan};
pub use release::Release;
pub use view::{FleetView, PinnedSet};
