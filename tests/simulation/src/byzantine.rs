//! A hostile control plane against real agents: it can stall them and lie about them, and nothing else.
//!
//! A run has two phases. First a [`hostile_control_plane`] answers every request of a few real agent
//! cores, which verify real signatures, through crashes, power losses and lost disks. Then an
//! [`honest_control_plane`] takes over and the fleet has to converge. [`walks`] and [`reports`] state what
//! must hold meanwhile. Start reading there, then at [`byzantine_run`].

pub mod answer;
pub mod attacked_host;
pub mod byzantine_campaign;
pub mod byzantine_run;
pub mod coverage;
pub mod genuine_releases;
pub mod honest_control_plane;
pub mod host_event;
pub mod hostile_control_plane;
pub mod reports;
pub mod run_state;
pub mod walks;
