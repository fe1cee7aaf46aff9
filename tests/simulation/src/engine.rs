//! What makes a run repeatable: seeded choices, virtual time, one queue of events, a hashed trace.

pub mod clock;
pub mod queue;
pub mod rng;
pub mod trace;

pub use clock::Time;
pub use queue::Queue;
pub use rng::Rng;
pub use trace::Trace;
