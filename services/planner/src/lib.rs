//! A leadership of the planner without IO: the barriers that fence older leaders, the effect of each
//! outcome, the time of the next plan, and the log of each action.
//!
//! Nothing here waits or reads a clock: the shell (the binary of this package) and the simulation
//! pass in positions, outcomes and times. Start reading at [`leadership_core::LeadershipCore`].

pub mod leadership_core;
pub mod plan_schedule;

pub use leadership_core::{
    Appends, AppliedOutcome, FENCE_TIMEOUT, HoldReason, LeadershipCore, LeadershipEnd,
    OUTCOME_TIMEOUT, Planned, Stage,
};
pub use plan_schedule::{ClockReading, PlanIntervals, PlanSchedule};
