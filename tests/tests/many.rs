//! A stack of several services that depend on each other (MySQL, PostgreSQL, Redis, an application), with volumes of every kind,
//! tmpfs, aliases, secrets, configs and binds: every test finds all of it as it was seeded.

use andon_tests::farm::Farm;
use andon_tests::project::Project;

fn every_service_is_put_back(driver: &str) {
    let project = Project::from_fixture("many");
    let farm = Farm::up(1, 1, &["--driver", driver]).with_database();
    let output = farm.run(&project.copy(), &[]);
    let shown = farm.show(farm.newest());
    assert!(output.status.success(), "{}\n{shown:#}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(shown["counts"]["passed"], 7, "{shown:#}");
    let tests = shown["tests"].as_array().expect("tests").iter();
    let drivers: Vec<_> =
        tests.map(|test| test["attempts"][0]["driver"].as_str().expect("a driver").to_owned()).collect();
    assert!(drivers.iter().any(|name| name == driver), "{drivers:?}");
}

#[test]
fn many_services_are_put_back_together_by_standby() {
    every_service_is_put_back("standby");
}

#[test]
fn many_services_are_put_back_together_by_restart() {
    every_service_is_put_back("restart");
}
