//! Decides what the control plane does next: a view of the fleet and a time in, actions and reasons
//! out.
//!
//! Pure: no clock, no IO, no randomness. Everything is derived from the level of the state, never
//! from a remembered edge, so a plan that was lost is simply made again. Cost follows what waits and
//! what is due, not the size of the fleet: [`view::FleetView`] keeps the hosts that a plan must look
//! at in ordered indices, and hosts that every gate treats alike are asked as one group.
//!
//! Start reading at [`plan`] (order of a run), then [`gates`] (why a host is held) and [`view`]
//! (what is known).
//!
//! Source: docs/semantics.md, plan.

pub mod debug;
pub mod gates;
pub mod host_report;
pub mod plan;
pub mod release;
pub mod view;
pub mod wait_reason;

pub use gates::{Block, Candidate};
pub use host_report::HostReport;
pub use plan::{ACTIONS_MAX, Plan, RETENTION_DAYS, explain, plan};
pub use release::Release;
pub use view::{FleetView, PinnedSet};
pub use wait_reason::WaitReason;
