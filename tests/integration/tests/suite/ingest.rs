//! The gateway for agents as a process: its clients, its answers, its refusals, and that a 2xx means durable.

mod admission;
mod agent_requests;
mod artifacts;
mod event_arrays;
mod malformed_events;
mod wrong_clock;
