//! Integration tests of the reducer room.
