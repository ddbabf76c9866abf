#![no_main]
//! See [`andon_fuzz::compose`].

libfuzzer_sys::fuzz_target!(|input: &[u8]| andon_fuzz::compose::check(input));
