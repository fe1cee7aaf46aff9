//! Rollout manifests: reading and verification.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nixfleet_fuzz::rollout(data));
