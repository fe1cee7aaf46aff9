//! Many simulated hosts in one process, each with its own agent, certificate and connection.
//!
//! Start reading at [`profile`] (what goes in) and [`state`] (what comes out).

pub mod profile;
pub mod state;
