//! Queued dispatches, and the requests of agents that wait for them.

mod delivery;
mod queue;

pub use delivery::DispatchDelivery;
pub use queue::QueuedDispatch;
