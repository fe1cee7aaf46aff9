//! One event as an agent sends it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nixfleet_fuzz::wire_event(data));
