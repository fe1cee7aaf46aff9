//! Canonical JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nixfleet_fuzz::dispatch_reply(data));
