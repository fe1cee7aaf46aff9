//! Integration tests of the eventlog room.
