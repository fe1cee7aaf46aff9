//! Integration tests of the store room.
