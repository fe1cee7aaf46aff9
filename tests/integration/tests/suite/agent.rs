//! Integration tests of the agent room.
