//! What makes a run repeatable: seeded choices, virtual time, one queue of events, a hashed trace.

pub mod event_queue;
pub mod rng;
pub mod trace;
pub mod virtual_time;

pub use event_queue::Queue;
pub use rng::Rng;
pub use trace::Trace;
pub use virtual_time::Time;
