//! What heartbeats prove.
