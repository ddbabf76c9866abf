//! Commits of real repositories, made into what the farm is asked to run.

use andon_proto as wire;

use super::*;
use crate::testing::{SAMPLE, TestRepo};

fn request() -> Request {
    Request {
        project: "shop".into(),
        repository: "https://example.org/shop.git".into(),
        git_ref: "refs/heads/main".into(),
        trigger: Trigger::Person,
        requested_by: "me".into(),
        submitted_unix_ms: 1_234,
    }
}

fn prepared(repo: &TestRepo) -> Prepared {
    let prepared = prepare(&repo.open(), &repo.head(), &request(), repo.root());
    prepared.unwrap_or_else(|error| panic!("{error}"))
}

fn refused(repo: &TestRepo) -> String {
    prepare(&repo.open(), &repo.head(), &request(), repo.root()).expect_err("is refused").to_string()
}

#[test]
fn the_sample_becomes_what_its_files_say() {
    let repo = TestRepo::sample();
    let Prepared { spec, archive, notes } = prepared(&repo);
    assert_eq!(notes, []);
    assert_eq!((spec.project.as_str(), spec.git_ref.as_str()), ("shop", "refs/heads/main"));
    assert_eq!(spec.commit, repo.head().to_string());
    assert_eq!(spec.source_digest, archive.digest);
    let provenance = spec.provenance.unwrap();
    assert_eq!((provenance.trigger(), provenance.submitted_unix_ms), (Trigger::Person, 1_234));

    let stack = spec.stack.unwrap();
    let compose = blake3::hash(crate::testing::SAMPLE_COMPOSE.as_bytes()).to_hex().to_string();
    assert_eq!(stack.compose_digest, compose);
    let [db] = stack.services.as_slice() else { panic!("one service") };
    assert_eq!(db.image.clone().unwrap().source, Some(wire::image::Source::Reference("mysql:9".into())));
    let volume = wire::mount::Source::Volume("data".into());
    let mount = wire::Mount { target: "/var/lib/mysql".into(), read_only: false, source: Some(volume) };
    assert_eq!(db.mounts, [mount]);
    assert_eq!(db.healthcheck.as_ref().unwrap().interval_ms, 500);
    assert_eq!((db.command.as_ref(), db.entrypoint.as_ref()), (None, None));

    let baseline = spec.baseline.unwrap();
    assert_eq!(baseline.seed, ["mysql -h db -uroot shop < db/seed.sql"]);
    assert_eq!(baseline.inputs, ["db/**"]);
    assert_eq!(baseline.seed_timeout_ms, 600_000);

    let [suite] = spec.suites.as_slice() else { panic!("one suite") };
    assert_eq!((suite.timeout_ms, suite.retries, suite.rebase()), (60_000, 1, wire::RebaseUnit::Test));
    assert_eq!(suite.workdir, "/src");
    let Some(wire::image::Source::Build(build)) = suite.image.clone().unwrap().source else {
        panic!("a build")
    };
    assert_eq!((build.context.as_str(), build.dockerfile.as_str()), (".", "Dockerfile"));
    assert_eq!(spec.policy.unwrap().max_failures, 50);
}

/// The digests of a baseline after a change to the sample.
fn digests(change: impl Fn(&TestRepo)) -> (String, String) {
    let repo = TestRepo::sample();
    change(&repo);
    repo.commit("change");
    let baseline = prepared(&repo).spec.baseline.unwrap();
    (baseline.inputs_digest, baseline.spec_digest)
}

#[test]
fn the_baselines_digest_moves_with_what_decides_the_baseline_and_with_nothing_else() {
    let same = digests(|_| {});
    assert_eq!(digests(|repo| repo.write("tests/test_x.py", "x")), same);
    assert_eq!(digests(|repo| repo.write("Dockerfile", "FROM other\n")), same);
    let compose = crate::testing::SAMPLE_COMPOSE;
    let commented = digests(|repo| repo.write("compose.yaml", format!("{compose}# a comment\n")));
    assert_eq!(commented, same);

    let input = digests(|repo| repo.write("db/seed.sql", "create table u (id int);\n"));
    assert!(input.0 != same.0 && input.1 != same.1);
    let service = digests(|repo| repo.write("compose.yaml", compose.replace("mysql:9", "mysql:8")));
    assert!(service.0 == same.0 && service.1 != same.1);
    let seed = digests(|repo| repo.write("andon.toml", SAMPLE.replace("-uroot", "-uother")));
    assert!(seed.0 == same.0 && seed.1 != same.1);
}

/// The sample with two steps, after a change.
fn steps(change: impl Fn(&TestRepo)) -> wire::BaselineSpec {
    let repo = TestRepo::sample();
    let seed = SAMPLE.lines().filter(|line| !line.starts_with("seed") && !line.starts_with("inputs"));
    let steps = "[[baseline.step]]\nrun = [\"load\"]\ninputs = [\"db/*.sql\"]\n\
                 [[baseline.step]]\nname = \"migrate\"\nrun = [\"migrate\"]\ninputs = [\"db/migrations/**\"]\ngrows = true\n";
    let text = seed.collect::<Vec<_>>().join("\n").replace("[baseline]\n", steps);
    repo.write("andon.toml", text);
    repo.write("db/migrations/1.sql", "one");
    change(&repo);
    repo.commit("change");
    prepared(&repo).spec.baseline.unwrap()
}

#[test]
fn each_step_has_the_digest_of_its_own_inputs_and_a_growing_one_the_files() {
    let base = steps(|_| {});
    assert_eq!((base.seed.join(" "), base.steps.len()), ("load migrate".to_owned(), 2));
    assert!(base.steps[0].files.is_empty() && !base.steps[0].grows);
    let paths = |spec: &wire::BaselineSpec| {
        spec.steps[1].files.iter().map(|file| file.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&base), ["db/migrations/1.sql"]);

    let added = steps(|repo| repo.write("db/migrations/2.sql", "two"));
    assert_eq!(added.steps[0], base.steps[0]);
    assert_eq!(added.steps[1].files[0], base.steps[1].files[0]);
    assert_eq!(paths(&added), ["db/migrations/1.sql", "db/migrations/2.sql"]);
    assert!(added.steps[1].inputs_digest != base.steps[1].inputs_digest);
    assert!(added.spec_digest != base.spec_digest && added.inputs_digest != base.inputs_digest);

    let edited = steps(|repo| repo.write("db/migrations/1.sql", "another"));
    assert!(edited.steps[1].files[0] != base.steps[1].files[0]);
    let seeded = steps(|repo| repo.write("db/seed.sql", "another"));
    assert!(seeded.steps[0] != base.steps[0] && seeded.steps[1] == base.steps[1]);
    assert_eq!(seeded.bound_digest, base.bound_digest);
}

#[test]
fn what_is_bound_into_a_service_belongs_to_the_baseline() {
    let compose =
        crate::testing::SAMPLE_COMPOSE.replace("volumes: [\"data", "volumes: [\"./init:/init:ro\", \"data");
    let with = |content: &str| {
        digests(|repo| {
            repo.write("compose.yaml", &compose);
            repo.write("init/a.sql", content);
        })
    };
    let (one, two) = (with("1"), with("2"));
    assert!(one.0 != two.0 && one.1 != two.1);
}

#[test]
fn a_service_that_is_built_moves_the_baseline_with_its_folder() {
    let compose = crate::testing::SAMPLE_COMPOSE.replace("image: mysql:9", "build: ./server");
    let with = |content: &str| {
        digests(|repo| {
            repo.write("compose.yaml", &compose);
            repo.write("server/Dockerfile", content);
        })
    };
    assert_ne!(with("FROM a").1, with("FROM b").1);
}

#[test]
fn the_mistakes_of_both_files_and_of_what_they_name_come_together() {
    let repo = TestRepo::sample();
    repo.write(
        "andon.toml",
        SAMPLE.replace("retries  =", "retires  =").replace("{ build = \".\" }", "{ build = \"docker\" }"),
    );
    repo.write(
        "compose.yaml",
        "services:\n  db:\n    image: mysql:9\n    privileged: true\n    volumes: [./missing:/x, ./lnk:/y]\n  \
         app:\n    build: .\n  other:\n    build: { context: db }\n",
    );
    std::os::unix::fs::symlink("/etc", repo.work().join("lnk")).unwrap();
    repo.commit("mistakes");
    insta::assert_snapshot!(refused(&repo), @r#"
    6 mistakes in the project's configuration
    andon.toml:11:1: build: there is no folder "docker" in this commit
    andon.toml:15:1: unknown key "retires" in [[suite]], did you mean "retries"?
    compose.yaml:4:5: "privileged" of service "db" is not supported: a service of a stack runs unprivileged; single capabilities go into "cap_add"
    compose.yaml:5:15: bind: there is no "missing" in this commit
    compose.yaml:5:29: bind: "lnk" is a symlink, which is not followed
    compose.yaml:9:5: build: there is no file "db/Dockerfile" in this commit
    "#);
}

#[test]
fn a_compose_file_that_is_not_there_is_named_at_its_place() {
    let repo = TestRepo::sample();
    repo.write("andon.toml", SAMPLE.replace("\"compose.yaml\"", "\"compose.yml\""));
    repo.commit("typo");
    insta::assert_snapshot!(refused(&repo), @r#"
    1 mistake in the project's configuration
    andon.toml:3:11: "compose": there is no "compose.yml" in this commit
    "#);
}

#[test]
fn a_commit_without_configuration_or_with_a_link_for_one_is_refused() {
    let repo = TestRepo::new();
    repo.write("x", "x");
    let commit = repo.commit("nothing");
    let error = prepare(&repo.open(), &commit, &request(), repo.root()).expect_err("no andon.toml");
    assert!(matches!(error, PrepareError::NoConfig { .. }) && error.is_of_the_commit());
    std::os::unix::fs::symlink("/etc/passwd", repo.work().join("andon.toml")).unwrap();
    repo.commit("link");
    assert!(refused(&repo).contains("a symlink or a folder is not read"));
}

#[test]
fn an_input_that_names_nothing_is_noted() {
    let repo = TestRepo::sample();
    repo.write("andon.toml", SAMPLE.replace("[\"db/**\"]", "[\"db/**\", \"sql/*\"]"));
    repo.commit("input");
    let notes: Vec<String> = prepared(&repo).notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["andon.toml:7:20: input \"sql/*\" names no file of this commit"]);
}

#[test]
fn a_project_that_is_no_name_is_refused() {
    let repo = TestRepo::sample();
    let request = Request { project: "../x".into(), ..request() };
    let error = prepare(&repo.open(), &repo.head(), &request, repo.root()).expect_err("no name");
    assert!(error.to_string().starts_with("\"../x\" is no name for a project"), "{error}");
}

#[test]
fn triggers_are_read_even_where_the_rest_is_wrong() {
    let repo = TestRepo::new();
    repo.write("andon.toml", "[triggers]\nbranches = [\"trunk\"]\n[[suite]]\nnaem = 1\n");
    let commit = repo.commit("wrong");
    let found = triggers(&repo.open(), &commit).unwrap().unwrap();
    assert_eq!(found.branches, ["trunk"]);
}

#[test]
fn a_forks_run_has_nothing_that_is_not_in_its_commit_and_reaches_nobody_until_it_is_approved() {
    let repo = TestRepo::sample();
    repo.write("andon.toml", SAMPLE.replace("retries", "egress = [\"pypi.org:443\"]\nretries"));
    repo.commit("wants to reach out");
    let of = |pull: Pull| {
        let mut prepared = prepared(&repo);
        prepared.of_pull(&pull);
        prepared.spec
    };
    let plain = prepared(&repo).spec;
    assert_eq!(plain.suites[0].egress, ["pypi.org:443"], "so the test can fail");
    let own = of(Pull { number: 7, fork: false, approved_by: None });
    assert_eq!(own.suites, plain.suites);
    let fork = of(Pull { number: 7, fork: true, approved_by: None });
    assert!(fork.suites.iter().all(|suite| suite.egress.is_empty()));
    let provenance = fork.provenance.clone().unwrap();
    assert_eq!((provenance.pull_request, provenance.fork, provenance.approved_by.as_str()), (7, true, ""));
    let approved = of(Pull { number: 7, fork: true, approved_by: Some("ann".into()) });
    assert_eq!(approved.suites, plain.suites);
    // Whoever looks at the specification finds no more than the commit and why it runs.
    let mut bare = fork;
    (bare.provenance, bare.suites) = (plain.provenance.clone(), plain.suites.clone());
    assert_eq!(bare, plain);
}

#[test]
fn a_quarantine_is_handed_over_and_ends_within_ninety_days_of_the_submission() {
    let with = |until: &str| {
        let repo = TestRepo::sample();
        let lines = format!("[[quarantine]]\ntest = \"a.py::x\"\nowner = \"@shop\"\nuntil = {until}\n");
        repo.write("andon.toml", format!("{SAMPLE}{lines}"));
        repo.commit("quarantine");
        repo
    };
    // Submitted on the first of January 1970.
    let quarantines = prepared(&with("1970-03-31")).spec.quarantines;
    let [quarantine] = quarantines.as_slice() else { panic!("one quarantine") };
    assert_eq!((quarantine.owner.as_str(), quarantine.until_unix_ms), ("@shop", 90 * 86_400_000));
    assert_eq!(quarantine.tests, Some(wire::quarantine::Tests::Test("a.py::x".into())));
    let said = refused(&with("1970-04-01"));
    assert!(said.contains("\"until\" is 91 days ahead") && said.contains("within 90 days"), "{said}");
}
