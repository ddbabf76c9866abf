#![no_main]
//! See [`andon_fuzz::andon_toml`].

libfuzzer_sys::fuzz_target!(|input: &[u8]| andon_fuzz::andon_toml::check(input));
