//! Integration tests of the bus room.
