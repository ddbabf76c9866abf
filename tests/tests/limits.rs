//! What a lane may use: a test that takes too much fails and is told its limit, a service that does is the farm's trouble and says so,
//! and there is no way out of a lane.

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::run;
use serde_json::Value;

fn attempts<'a>(shown: &'a Value, id: &str) -> Vec<&'a Value> {
    let tests = shown["tests"].as_array().expect("tests");
    let test = tests.iter().find(|test| test["id"] == id).unwrap_or_else(|| panic!("no {id}: {shown:#}"));
    test["attempts"].as_array().expect("attempts").iter().collect()
}

#[test]
fn memory_processes_and_the_world_end_at_the_lanes_bounds_and_say_so() {
    let project = Project::from_fixture("limits");
    let farm = Farm::up(1, 1, &[]);
    run(farm.andon().current_dir(project.copy()).arg("run"));
    let shown = farm.show(farm.newest());

    let [hog] = attempts(&shown, "hog")[..] else { panic!("one attempt: {shown:#}") };
    assert_eq!(hog["outcome"], "failed", "{hog:#}");
    let message = hog["message"].as_str().expect("a message");
    assert!(message.contains("out of memory: limit 64 MiB"), "{message}");
    for fine in ["bomb", "way-out", "proxy"] {
        let [attempt] = attempts(&shown, fine)[..] else { panic!("one attempt: {shown:#}") };
        assert_eq!(attempt["outcome"], "passed", "{attempt:#}");
    }
    let fed = attempts(&shown, "feed");
    for attempt in &fed {
        assert_eq!(attempt["outcome"], "infrastructure", "{attempt:#}");
        let message = attempt["message"].as_str().expect("a reason");
        assert!(message.contains("service `eater` ran out of memory: limit 48 MiB"), "{message}");
    }
    assert!(!fed.is_empty());
}
