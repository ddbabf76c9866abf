//! The dashboard over a farm that ran real tests, in a real browser: `tests/browser/farm.mjs` says what is looked at.

use std::io::Write as _;
use std::process::{Command, Stdio};

use andon_tests::farm::{Farm, QUICKLY_BACK};
use andon_tests::project::Project;
use andon_tests::{ok, stage};

#[test]
fn somebody_signs_in_finds_why_a_run_failed_follows_one_and_reruns_from_the_page() {
    let broken = Project::on_stack_of("mini", "attach");
    let crowd = Project::from_fixture("crowd");
    let farm = Farm::up(1, 2, &QUICKLY_BACK).with_database();
    let ended = farm.run(&broken.copy(), &["--project", "shop"]);
    assert_eq!(ended.status.code(), Some(100), "{}", String::from_utf8_lossy(&ended.stderr));
    let failed = farm.newest();
    ok(farm.andon().current_dir(crowd.copy()).args(["run", "--project", "crowd", "--detach"]));
    let live = farm.newest();
    farm.progressed(live, 20);

    let token = ok(farm.andon().args(["token", "developer"]));
    let mut looking = Command::new("node");
    looking.arg(format!("{}/farm.mjs", stage("ANDON_TEST_BROWSER")));
    looking.args([farm.port().to_string(), failed.to_string(), live.to_string(), "shop".to_owned()]);
    looking.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut looking = looking.spawn().expect("node starts");
    looking.stdin.take().expect("it is piped").write_all(token.as_bytes()).expect("it is read");
    let looked = looking.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&looked.stdout);
    println!("{said}");
    assert!(looked.status.success(), "{said}{}", String::from_utf8_lossy(&looked.stderr));

    let rerun = farm.show(farm.newest());
    assert_eq!((&rerun["rerun_of"], &rerun["counts"]["total"]), (&failed.into(), &1.into()), "{rerun:#}");
}
