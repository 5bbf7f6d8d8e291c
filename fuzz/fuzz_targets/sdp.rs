//! See `sipalg::fuzzing::sdp`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sipalg::fuzzing::sdp(data));
