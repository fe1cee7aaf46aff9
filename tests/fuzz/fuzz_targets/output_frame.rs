//! Frames of output streams.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nixfleet_fuzz::output_frame(data));
