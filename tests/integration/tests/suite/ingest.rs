//! Integration tests of the ingest room.
