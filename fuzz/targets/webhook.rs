#![no_main]
//! See [`andon_fuzz::webhook`].

libfuzzer_sys::fuzz_target!(|input: &[u8]| andon_fuzz::webhook::check(input));
