#![no_main]
//! See [`andon_fuzz::junit`].

libfuzzer_sys::fuzz_target!(|input: &[u8]| andon_fuzz::junit::check(input));
