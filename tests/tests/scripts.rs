//! What the scripts beside `ci/test` look at, in short: each ends with 0 where it finds nothing.

use std::path::Path;
use std::process::Command;

use andon_tests::{ok, stage};

/// A script of `ci/`, on what `ci/test` has built.
fn finds_nothing(script: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci").join(script);
    let mut script = Command::new(path);
    script
        .args(arguments)
        .envs([("ANDON_IS_BUILT", "1"), ("ANDON_WORKER_IMAGE", &stage("ANDON_TEST_WORKER_IMAGE"))]);
    println!("{}", ok(&mut script));
}

#[test]
fn nothing_is_left_on_the_host_wherever_a_worker_is_killed() {
    finds_nothing("residue", &["--cycles", "20", "--seconds", "75"]);
}

#[test]
fn each_page_of_a_farm_that_is_made_up_is_read_by_axe_in_a_browser() {
    finds_nothing("browser", &[]);
}
