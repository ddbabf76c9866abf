//! What a lane may write: a unit that goes beyond is ended as its own failure, wherever it writes, and its neighbours do not notice.

use andon_tests::farm::Farm;
use andon_tests::project::Project;
use andon_tests::run;

#[test]
fn a_unit_that_writes_without_end_fails_by_its_limit_and_its_neighbours_pass() {
    let project = Project::from_fixture("disk");
    let farm = Farm::up(1, 2, &[]);
    run(farm.andon().current_dir(project.copy()).arg("run"));
    let shown = farm.show(farm.newest());
    let tests = shown["tests"].as_array().expect("tests");
    assert_eq!(tests.len(), 8, "{shown:#}");
    for test in tests {
        let id = test["id"].as_str().expect("an id");
        let [attempt] = &test["attempts"].as_array().expect("attempts")[..] else {
            panic!("{id}: one attempt: {test:#}")
        };
        let place = match id {
            "layer" => "the test's container",
            "hidden" => "files that have no name any more",
            "service" => "volume/kept",
            "crumbs" => "its copy of the source",
            _ => {
                assert_eq!(attempt["outcome"], "passed", "{id}: {attempt:#}");
                continue;
            }
        };
        assert_eq!(attempt["outcome"], "failed", "{id}: {attempt:#}");
        let message = attempt["message"].as_str().expect("a message");
        println!("{id}: {message}");
        assert!(message.contains("disk limit of the lane: 48 MiB"), "{id}: {message}");
        assert!(message.contains(&format!("most of it in {place}")), "{id}: {message}");
    }
}
