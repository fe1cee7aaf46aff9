//! Integration tests of the applier room.
