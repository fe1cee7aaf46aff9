//! Determinism of a run: seeded random generators, virtual time, one event queue, a hashed trace.

pub mod event_queue;
pub mod rng;
pub mod trace;
pub mod virtual_time;

pub use event_queue::Queue;
pub use rng::Rng;
pub use trace::Trace;
pub use virtual_time::Time;
