//! Stored forms of frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nixfleet_fuzz::frame_encoding(data));
