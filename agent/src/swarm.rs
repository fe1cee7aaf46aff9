//! Many simulated hosts in one process, each with its own agent, certificate and connection.
//!
//! Start reading at [`profile`] (what goes in), [`state`] (what comes out) and [`run`].

mod admin;
pub mod certs;
pub mod fate;
pub mod host;
pub mod knowledge;
pub mod machine;
pub mod profile;
pub mod run;
pub mod state;
