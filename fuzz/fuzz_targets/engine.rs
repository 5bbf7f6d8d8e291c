//! See `sipalg::fuzzing::engine`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sipalg::fuzzing::engine(data));
