//! See `sipalg::fuzzing::packet`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sipalg::fuzzing::packet(data));
