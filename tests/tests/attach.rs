//! A broken database to look into: a failed test's stack is kept, starts again from what the test left, and stays as it was.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::{ok, run};
use serde_json::Value;

const BROKEN: &str = "tests/test_attach.py::test_leaves_a_row";
const PASSED: &str = "tests/test_attach.py::test_needs_it_pristine[1]";
/// Prints all rows, and deletes them.
const LOOK: &str = "import pymysql; db = pymysql.connect(host='db', user='root', database='mini', autocommit=True); \
                    c = db.cursor(); c.execute('SELECT id, value FROM counter ORDER BY id'); print(c.fetchall()); \
                    c.execute('DELETE FROM counter')";

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn attach(farm: &Farm, more: &[&str]) -> Command {
    let mut command = farm.andon();
    command.arg("attach").arg(farm.newest().to_string()).arg(BROKEN).args(more);
    command.stdin(Stdio::null());
    command
}

/// A failing test's row is there, again and again, and its neighbours found the stack pristine.
fn what_a_failed_test_left_is_kept(driver: &str) -> (Project, Farm) {
    let project = Project::on_stack_of("mini", "attach");
    let farm = Farm::up(1, 1, &["--driver", driver]).with_database();
    let ended = farm.run(&project.copy(), &[]);
    assert_eq!(ended.status.code(), Some(100), "{}", said(&ended));
    let shown = farm.show(farm.newest());
    assert_eq!((&shown["counts"]["failed"], &shown["counts"]["passed"]), (&1.into(), &3.into()), "{shown:#}");

    let number = farm.newest().to_string();
    let diff = ok(farm.andon().args(["diff", &number, BROKEN, "--json"]));
    let diff: Value = serde_json::from_str(&diff).unwrap_or_else(|error| panic!("{error}\n{diff}"));
    let data = diff["trees"].as_array().expect("trees").iter().find(|tree| tree["tree"] == "volume/data");
    let files = data.unwrap_or_else(|| panic!("{diff:#}"))["files"].as_array().expect("files");
    assert!(
        files.iter().any(|file| file["path"] == "mini/counter.ibd" && file["change"] == "content"),
        "{diff:#}"
    );
    let plain = ok(farm.andon().args(["diff", &number, BROKEN]));
    assert!(plain.contains("volume/data") && plain.contains("mini/counter.ibd"), "{plain}");

    // What its database had written by then; nobody's who passed.
    let log = ok(farm.andon().args(["logs", &number, BROKEN, "--service", "db"]));
    assert!(log.contains("ready for connections"), "{log}");
    let other = run(farm.andon().args(["logs", &number, BROKEN, "--service", "cache"]));
    assert_eq!(other.status.code(), Some(2), "{}", said(&other));
    assert!(said(&other).contains("but of these: db"), "{}", said(&other));
    let passed = run(farm.andon().args(["logs", &number, PASSED, "--service", "db"]));
    assert_eq!(passed.status.code(), Some(2), "{}", said(&passed));
    assert!(said(&passed).contains("failed on no services"), "{}", said(&passed));

    // What is done in one attach is not there in the next.
    for _ in 0..2 {
        let looked = run(&mut attach(&farm, &["--", "python3", "-c", LOOK]));
        assert_eq!(looked.status.code(), Some(0), "{}", said(&looked));
        let rows = String::from_utf8_lossy(&looked.stdout).into_owned();
        assert_eq!(rows.trim(), "((1, 0), (4711, 42))", "{}", said(&looked));
    }
    (project, farm)
}

#[test]
fn a_failed_tests_row_its_changed_files_a_command_and_a_port_with_standby() {
    let (project, farm) = what_a_failed_test_left_is_kept("standby");

    // The exit code is the command's, its outputs come apart, and its input comes to its end.
    let coded = run(&mut attach(&farm, &["--", "sh", "-c", "cat; echo out; echo err >&2; exit 7"]));
    assert_eq!((coded.status.code(), coded.stdout.as_slice()), (Some(7), &b"out\n"[..]), "{}", said(&coded));
    assert!(String::from_utf8_lossy(&coded.stderr).lines().any(|line| line == "err"), "{}", said(&coded));
    let at_home = run(&mut attach(&farm, &["--service", "db", "--", "ls", "/var/lib/mysql/mini"]));
    assert!(String::from_utf8_lossy(&at_home.stdout).contains("counter.ibd"), "{}", said(&at_home));

    // The database's own greeting comes through the port.
    let mut led = attach(&farm, &["--port", "3306:0", "--", "sleep", "120"]);
    let mut led = led.stderr(Stdio::piped()).spawn().expect("andon starts");
    let mut lines = BufReader::new(led.stderr.take().expect("it is piped")).lines();
    let at = lines.find_map(|line| {
        line.expect("text").strip_prefix("port 3306 of the service is at ").map(str::to_owned)
    });
    let stream = TcpStream::connect(at.expect("it says where")).expect("the port is open");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
    let mut greeting = [0; 5];
    (&stream).read_exact(&mut greeting).expect("the database greets");
    assert_eq!(greeting[4], 10, "the protocol's number: {greeting:?}");
    led.kill().expect("it runs");
    led.wait().expect("it ends");

    // Others have nothing to look into, and the lane works on.
    let passed = run(farm.andon().args(["diff", PASSED]));
    assert_eq!(passed.status.code(), Some(2), "{}", said(&passed));
    assert!(said(&passed).contains("only failed tests' stacks are kept"), "{}", said(&passed));
    let again = farm.run(&project.copy(), &["pristine"]);
    assert_eq!(again.status.code(), Some(0), "{}", said(&again));
}

#[test]
fn a_failed_tests_row_is_kept_with_restart() {
    drop(what_a_failed_test_left_is_kept("restart"));
}
