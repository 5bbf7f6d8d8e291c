//! See `sipalg::fuzzing::tcp`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sipalg::fuzzing::tcp(data));
