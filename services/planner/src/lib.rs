//! One leadership of the planner as a plain value: which barriers fence older leaders out, what
//! an outcome means to the leader, when a plan is due and what of it goes into which log.
//!
//! Waits for nothing and reads no clock: the shell (the program beside this library) and the
//! simulation drive it with positions, outcomes and times. What to plan is decided in
//! `nixfleet-plan`. Start reading at [`leader::Leader`].

pub mod agenda;
pub mod leader;

pub use agenda::{Agenda, Now, Pace};
pub use leader::{Appends, Heard, Leader, PATIENCE, Planned, Stage, StandDown};
