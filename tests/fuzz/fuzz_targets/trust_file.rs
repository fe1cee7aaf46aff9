//! Trust files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nixfleet_fuzz::trust_file(data));
