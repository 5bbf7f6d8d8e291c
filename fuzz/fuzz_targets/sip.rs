//! See `sipalg::fuzzing::sip`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| sipalg::fuzzing::sip(data));
