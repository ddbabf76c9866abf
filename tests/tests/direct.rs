//! Services that are killed and started without their daemon: each life is what the daemon's own was, and none outlives the
//! daemon.

use std::process::Command;

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::{eventually, ok};

/// Where a box keeps what is started without the daemon.
const DIRECT: &str = "/var/lib/andon/run/direct";
const TESTS: u32 = 4;

fn in_box(farm: &Farm, script: &str) -> String {
    ok(Command::new("docker").args(["exec", &farm.boxes()[0], "sh", "-ec", script]))
}

/// Id and first process of each container that runs without the daemon.
fn direct(farm: &Farm) -> Vec<(String, String)> {
    let script = format!(
        "for file in {DIRECT}/*/pid; do pid=$(cat $file 2>/dev/null) && id=$(basename $(dirname $file)) && \
         grep -q $id /proc/$pid/cgroup 2>/dev/null && echo $id $pid; done; true"
    );
    let said = in_box(farm, &script);
    let pairs = said.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(id, pid)| (id.to_owned(), pid.to_owned())).collect()
}

/// What each test printed, in order.
fn reports(farm: &Farm, project: &Project) -> Vec<String> {
    let output = farm.run(&project.copy(), &[]);
    let shown = farm.show(farm.newest());
    assert!(output.status.success(), "{}\n{shown:#}", String::from_utf8_lossy(&output.stderr));
    let run = farm.newest().to_string();
    (1..=TESTS).map(|n| ok(farm.andon().args(["logs", &run, &format!("look-{n}")]))).collect()
}

#[test]
fn a_service_restarted_without_its_daemon_is_what_it_was_and_goes_with_its_daemon() {
    let farm = Farm::up(1, 1, &["--driver", "restart"]);
    let project = Project::from_fixture("mirror");
    let reports = reports(&farm, &project);
    // The first life was started by the daemon: a stack is made so.
    println!("{}", reports[0]);
    for (place, report) in reports.iter().enumerate() {
        assert!(report.contains("Seccomp:\t2") && report.contains("may sync: yes"), "{report}");
        let differs: Vec<_> = diff(&reports[0], report);
        assert!(differs.is_empty(), "life {place}: {differs:#?}");
    }

    let (id, pid) = eventually("the service runs without the daemon", || direct(&farm).pop());
    let docker = "docker -H unix:///var/lib/andon/run/docker.sock";
    let daemons = in_box(&farm, &format!("{docker} inspect -f '{{{{.State.Status}}}}' {id}"));
    assert_eq!(daemons.trim(), "exited", "to the daemon it has ended");

    in_box(&farm, "kill -9 $(pgrep -x dockerd)");
    eventually("what was started without the daemon has gone with it", || {
        let left = format!(
            "if test -e /proc/{pid} && grep -q {id} /proc/{pid}/cgroup; then echo process; fi; grep {id} /proc/self/mountinfo || true; \
             find /sys/fs/cgroup -type d -name {id}; ls -d {DIRECT}/{id} 2>/dev/null || true"
        );
        in_box(&farm, &left).trim().is_empty().then_some(())
    });
    let after = self::reports(&farm, &project);
    assert_eq!(after.len(), 4);
    eventually("no process that has ended is left in the table", || {
        in_box(&farm, "ps -eo stat= | grep -c '^Z' || true").trim().eq("0").then_some(())
    });
}

/// Lines that only one of them has.
fn diff(one: &str, other: &str) -> Vec<String> {
    let only = |left: &str, right: &str, sign: char| {
        let right: Vec<&str> = right.lines().collect();
        let lines = left.lines().filter(|line| !right.contains(line));
        lines.map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only(one, other, '-'), only(other, one, '+')].concat()
}
