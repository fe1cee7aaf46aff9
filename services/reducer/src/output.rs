//! From outcomes to the output log: frames, their queue, and the space they may take.

pub mod frame_builder;
pub mod log_capacity;
pub mod publish_queue;
