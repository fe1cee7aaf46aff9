//! Many simulated hosts in one process, each with its own agent, certificate and connection.
//!
//! The agents are real: `nixfleet_agent`'s core and shell. The machine under each of them is simulated.
//! Must never know: streams, tables, the planner. Start reading at [`profile`] (input), [`swarm_state`] (output)
//! and [`run`].

#![expect(missing_docs, reason = "most fields say what they are")]

mod admin;
pub mod agent_certificates;
pub mod closure_behavior;
pub mod profile;
pub mod run;
pub mod simulated_host;
pub mod simulated_machine;
pub mod state_recorder;
pub mod swarm_state;
