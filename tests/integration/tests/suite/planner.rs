//! Integration tests of the planner room.
