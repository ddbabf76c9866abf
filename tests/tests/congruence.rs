//! `andon baseline verify` on real workers: what is the same is called so, what somebody altered in a pool is found, named and mended.

use std::process::Command;

use andon_tests::farm::{Farm, QUICKLY_BACK};
use andon_tests::project::Project;
use andon_tests::{ok, run};
use serde_json::Value;

/// What `andon baseline verify` said, and with which exit code it ended.
fn verify(farm: &Farm, more: &[&str]) -> (i32, Vec<Value>) {
    let output = run(farm.andon().args(["baseline", "verify", "--json"]).args(more));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("an exit code"), said.as_array().expect("a list of workers").clone())
}

fn states<'a>(worker: &'a Value, of: &str) -> Vec<&'a str> {
    worker[of].as_array().expect("a list").iter().map(|one| one["state"].as_str().expect("a state")).collect()
}

#[test]
fn a_file_that_is_altered_in_a_workers_pool_is_found_named_and_mended() {
    let farm = Farm::up(2, 1, &QUICKLY_BACK).with_database();
    let project = Project::from_fixture("mini");
    let output = farm.run(&project.copy(), &["--project", "mini"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let key = farm.show(farm.newest())["baseline_key"].as_str().expect("a baseline").to_owned();

    let (code, workers) = verify(&farm, &[&key]);
    assert_eq!((code, workers.len()), (0, 2), "{workers:#?}");
    for worker in &workers {
        assert_eq!(states(worker, "baselines"), ["same"], "{worker:#}");
        assert!(states(worker, "lanes").iter().all(|state| ["same", "busy"].contains(state)), "{worker:#}");
    }
    let digests = |worker: &Value| worker["baselines"][0]["trees"].clone();
    assert_eq!(digests(&workers[0]), digests(&workers[1]), "two workers hold the same");

    let box_of = |worker: &str| {
        let boxes = farm.boxes();
        boxes.into_iter().find(|name| name.ends_with(worker)).expect("a worker has a box")
    };
    let victim = workers[0]["worker"].as_str().expect("a name").to_owned();
    let alter = "file=$(find /var/lib/andon/pool -path '*/baselines/*' -name ibdata1 | head -n 1); \
                 test -n \"$file\" && printf altered | dd of=\"$file\" bs=1 seek=70000 conv=notrunc 2>/dev/null";
    ok(Command::new("docker").args(["exec", &box_of(&victim), "sh", "-c", alter]));

    let (code, workers) = verify(&farm, &[&key[..12]]);
    assert_eq!(code, 1, "{workers:#?}");
    let of = |name: &str| workers.iter().find(|worker| worker["worker"] == name).expect("it was asked");
    let broken = &of(&victim)["baselines"][0];
    assert_eq!(
        (&broken["state"], &broken["parts"][0]["what"]),
        (&"differs".into(), &"ibdata1".into()),
        "{broken:#}"
    );
    let other = workers.iter().find(|worker| worker["worker"] != victim.as_str()).expect("two were asked");
    assert_eq!(states(other, "baselines"), ["same"]);

    // It lets go, fetches anew with its next unit, and is the same again.
    let output = farm.run(&project.copy(), &["--project", "mini"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let (code, workers) = verify(&farm, &[]);
    assert_eq!(code, 0, "{workers:#?}");

    for wrong in [vec!["0000"], vec!["--worker", "nobody"]] {
        let output = run(farm.andon().args(["baseline", "verify"]).args(&wrong));
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
