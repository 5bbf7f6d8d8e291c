//! See `sipalg::fuzzing::differential`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sipalg::fuzzing::differential(data));
