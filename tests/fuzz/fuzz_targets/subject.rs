//! Subjects and the names in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nixfleet_fuzz::subject(data));
