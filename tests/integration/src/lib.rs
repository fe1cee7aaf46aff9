//! Holds only tests; see `tests/main.rs`.
