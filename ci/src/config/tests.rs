//! What `andon.toml` says, and what it is told.

use proptest::prelude::*;

use super::*;
use crate::testing::SAMPLE;

fn problems(text: &str) -> String {
    parse(FILE_NAME, text.as_bytes()).expect_err("has mistakes").to_string()
}

fn accepted(text: &str) -> Config {
    parse(FILE_NAME, text.as_bytes()).unwrap_or_else(|errors| panic!("{errors}")).0
}

/// A suite that is right, with more below it.
fn suite(more: &str) -> String {
    format!("[[suite]]\nname = \"s\"\nimage = \"i:1\"\n{more}\n")
}

#[test]
fn the_designs_sample_means_what_it_says() {
    let config = accepted(SAMPLE);
    assert_eq!(config.compose.as_ref().map(|path| path.value.as_str()), Some("compose.yaml"));
    assert_eq!(config.baseline.steps[0].run[0].value, "mysql -h db -uroot shop < db/seed.sql");
    assert_eq!(config.baseline.steps[0].inputs[0].value, "db/**");
    assert_eq!(config.baseline.seed_timeout, DEFAULT_SEED_TIMEOUT);
    assert_eq!(config.policy, Policy { max_failures: Some(50), ..Policy::default() });
    assert_eq!(config.triggers.branches, DEFAULT_BRANCHES);
    let [suite] = config.suites.as_slice() else { panic!("one suite") };
    let root = RepoPath::root();
    let build = Build {
        context: root.clone(),
        dockerfile: root.join("Dockerfile").unwrap(),
        target: String::new(),
        args: Vec::new(),
    };
    let expected = Suite {
        name: "integration".into(),
        image: Located {
            value: Image::Build(build),
            place: Place { file: FILE_NAME.into(), line: 11, column: 1 },
        },
        runner: Runner::Command {
            discover: "pytest --collect-only -q".into(),
            run: "pytest -q --junitxml={junit} {tests}".into(),
        },
        timeout: Duration::from_secs(60),
        retries: 1,
        rebase: Rebase::Test,
        process: Process::Unit,
        env: Vec::new(),
        workdir: DEFAULT_WORKDIR.into(),
        docker: false,
        limits: Limits::default(),
        egress: Vec::new(),
    };
    assert_eq!(suite, &expected);
}

#[test]
fn a_key_that_is_known_is_no_misspelling_of_one_that_is_missing() {
    let said = problems(&suite("runner = \"junit\"\ndiscover = \"ls\"\nreports = [\"*.xml\"]"));
    assert!(said.contains("the suite has no \"run\""), "{said}");
}

#[test]
fn every_key_has_its_effect() {
    let config = accepted(
        r#"
        [stack]
        compose = "deploy/../deploy/compose.yaml"
        quick = { db = "mysql", cache = "redis" }
        [baseline]
        seed = ["a", "b"]
        inputs = ["db/*.sql", "schema"]
        seed_timeout = "2m30s"
        [baseline.labels]
        team = "shop"
        [[suite]]
        name = "py"
        image = { build = "docker/test", dockerfile = "Containerfile", target = "test", args = { B = "2", A = "1" } }
        runner = "pytest"
        command = "python3.13 -m pytest"
        args = ["tests", "-p", "no:cacheprovider"]
        rebase = "class"
        env = { TZ = "UTC" }
        workdir = "/work"
        docker = true
        egress = ["pypi.org:443", "*.example.com:443", "10.0.0.5:5432"]
        [[suite]]
        name = "go"
        image = "registry.example.org:5000/go@sha256:0123"
        runner = "command"
        discover = "list"
        run = "go-run {tests}"
        rebase = "never"
        timeout = "1h"
        [policy]
        fail_fast = true
        keep = "failed"
        keep_max = 5
        keep_for = "2h"
        [triggers]
        branches = ["trunk", "release/*"]
        "#,
    );
    assert_eq!(config.compose.unwrap().value.as_str(), "deploy/compose.yaml");
    let quick: Vec<_> = config.quick.iter().map(|(name, engine)| (name.value.as_str(), *engine)).collect();
    assert_eq!(quick, [("cache", quick::Engine::Redis), ("db", quick::Engine::MySql)]);
    assert_eq!(config.baseline.labels, [("team".to_owned(), "shop".to_owned())]);
    assert_eq!(config.baseline.seed_timeout, Duration::from_secs(150));
    let py = &config.suites[0];
    let Image::Build(build) = &py.image.value else { panic!("a build") };
    assert_eq!((build.context.as_str(), build.dockerfile.as_str()), ("docker/test", "Containerfile"));
    assert_eq!(build.args, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())]);
    let args = vec!["tests".to_owned(), "-p".to_owned(), "no:cacheprovider".to_owned()];
    assert_eq!(py.runner, Runner::Pytest { command: "python3.13 -m pytest".into(), args });
    assert_eq!((py.rebase, py.workdir.as_str()), (Rebase::Class, "/work"));
    assert_eq!(py.env, [("TZ".to_owned(), "UTC".to_owned())]);
    assert_eq!(py.egress, ["pypi.org:443", "*.example.com:443", "10.0.0.5:5432"]);
    assert!(py.docker && !config.suites[1].docker);
    assert_eq!(config.suites[1].rebase, Rebase::Never);
    assert!(config.policy.fail_fast);
    let kept = (config.policy.keep, config.policy.keep_max, config.policy.keep_for);
    assert_eq!(kept, (Keep::Failed, 5, Duration::from_secs(7200)));
    assert!(config.triggers.wants("trunk") && config.triggers.wants("release/1"));
    assert!(!config.triggers.wants("release/1/fix") && !config.triggers.wants("main"));
}

#[test]
fn all_mistakes_come_at_once() {
    let text = r#"title = "shop"
max_failures = 3
[stack]
compse = "compose.yaml"
[baseline]
seed = ["mysql < db/seed.sql", ""]
inputs = ["/db/**", "a[", "../x"]
seed_timeout = 60
[baseline.labels]
"dev.andon.key" = "x"
[[suite]]
name = "unit tests"
imge = "i:1"
runner = "pytset"
timeout = "60"
retires = 1
rebase = "tests"
[[suite]]
name = "b"
image = { biuld = "." }
discover = "list"
run = "run '{tests}' {test}"
retries = 99
env = { "A-B" = "1", ANDON_LANE = "2" }
workdir = "src"
[[suite]]
name = "b"
image = "UP per"
runner = "pytest"
run = "x"
[policy]
max_failures = 0
fail_fast = "yes"
[triggers]
branches = ["refs/heads/main", "a{b"]
"#;
    insta::assert_snapshot!(problems(text), @r#"
    andon.toml:1:1: unknown key "title"; known are "stack", "baseline", "suite", "limits", "policy", "triggers" and "quarantine"
    andon.toml:2:1: unknown key "max_failures", it belongs in [policy]
    andon.toml:4:1: unknown key "compse" in [stack], did you mean "compose"?
    andon.toml:6:32: a seed command is empty
    andon.toml:7:11: input "/db/**": write a path from the repository's root, such as "db/**"
    andon.toml:7:21: input "a[": unclosed character class; missing ']'
    andon.toml:7:27: input "../x": write a path from the repository's root, such as "db/**"
    andon.toml:8:16: "seed_timeout" must be a duration such as "500ms", "60s", "1m30s" or "2h", not a number
    andon.toml:10:1: label "dev.andon.key" is set by Andon itself: choose another name
    andon.toml:12:8: "unit tests" is no name for a suite: up to 63 letters, digits, ".", "_" and "-", the first a letter or digit
    andon.toml:13:1: unknown key "imge" in [[suite]], did you mean "image"?
    andon.toml:14:10: "runner" is "pytset": write "pytest", "nextest", "libtest", "go", "jest", "vitest", "node", "junit", "tap" or "command"
    andon.toml:15:11: "timeout" is "60": write a duration such as "500ms", "60s", "1m30s" or "2h"
    andon.toml:16:1: unknown key "retires" in [[suite]], did you mean "retries"?
    andon.toml:17:10: "rebase" is "tests": write "test", "class", "file", "batch" or "never"
    andon.toml:20:11: unknown key "biuld" in image, did you mean "build"?
    andon.toml:22:7: "run" has {tests} in quotes: each id is quoted already, write it bare
    andon.toml:22:7: "run" has {test}, did you mean {tests}?
    andon.toml:23:11: "retries" is 99: write a whole number from 0 to 10
    andon.toml:24:9: "A-B" is no variable: letters, digits and "_"
    andon.toml:24:22: "ANDON_LANE" is set by Andon itself: choose another name
    andon.toml:25:11: workdir "src": write an absolute path without "..", such as "/src"
    andon.toml:27:8: suite "b" is on line 19 already
    andon.toml:28:9: "UP per" is no image: write "name:tag" or "registry/name@sha256:…"
    andon.toml:30:1: "run" is no key of the runner "pytest", whose own are "command", "args"
    andon.toml:32:16: "max_failures" is 0: write a whole number from 1 to 1000000
    andon.toml:33:13: "fail_fast" must be true or false, not a string
    andon.toml:35:13: branch "refs/heads/main": write "main" without refs/heads/
    andon.toml:35:32: branch "a{b": unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
    "#);
}

#[test]
fn a_syntax_error_does_not_hide_the_others() {
    let text =
        "[[suite]]\nname = \"s\nimage = \"i:1\"\nrunner = \"pytest\"\nretires = 1\ntimeout = = \"60s\"\n";
    insta::assert_snapshot!(problems(text), @r#"
    andon.toml:2:10: invalid basic string, expected `"`
    andon.toml:5:1: unknown key "retires" in [[suite]], did you mean "retries"?
    andon.toml:6:11: extra `=`, expected nothing
    andon.toml:6:13: unexpected key or value, expected newline, `#`
    "#);
}

#[test]
fn runners_want_what_is_theirs() {
    let report = [
        "",
        "discover = \"l\"",
        "run = \"r {tests}\"",
        "discover = \"l {tests}\"\nrun = \"r\"",
        "discover = \"l\"\nrun = \"r {tests} {tests} {junit} {junit}\"",
        "discover = \"\"\nrun = \"  \"",
        "runner = \"pytest\"\ndiscover = \"l\"\nrun = \"r {tests}\"",
        "runner = \"command\"\nargs = []\ndiscover = \"l\"\nrun = \"r {tests}\"",
    ]
    .map(|more| problems(&suite(more)))
    .join("\n--\n");
    insta::assert_snapshot!(report, @r#"
    andon.toml:1:1: the suite has no runner: write runner = "pytest", or "discover" and "run"
    --
    andon.toml:1:1: the suite has no "run", which its runner needs
    --
    andon.toml:1:1: the suite has no "discover", which its runner needs
    --
    andon.toml:4:12: "discover" has {tests}, which only "run" has
    andon.toml:5:7: "run" has no {tests}, the place of the tests' ids
    --
    andon.toml:5:7: "run" has {junit} more than once
    andon.toml:5:7: "run" has {tests} more than once
    --
    andon.toml:4:12: "discover" is empty
    andon.toml:5:7: "run" is empty
    --
    andon.toml:5:1: "discover" is no key of the runner "pytest", whose own are "command", "args"
    andon.toml:6:1: "run" is no key of the runner "pytest", whose own are "command", "args"
    --
    andon.toml:5:1: "args" is no key of the runner "command", whose own are "discover", "run"
    "#);
}

#[test]
fn each_preset_takes_its_own_keys_and_no_other() {
    let report = [
        "runner = \"jest\"\nreports = [\"x\"]",
        "runner = \"junit\"\ndiscover = \"l\"\nrun = \"r {tests} {list}\"",
        "runner = \"junit\"\ndiscover = \"l\"\nrun = \"r {junit}\"\nreports = [\"../x\", \"$(id)\"]",
        "runner = \"tap\"\ndiscover = \"l\"\nrun = \"r '{test}'\"",
        "runner = \"vitest\"\nprocess = \"shared\"",
    ]
    .map(|more| problems(&suite(more)))
    .join("\n--\n");
    insta::assert_snapshot!(report, @r#"
    andon.toml:5:1: "reports" is no key of the runner "jest", whose own are "command", "args"
    --
    andon.toml:1:1: the suite has no "reports", which its runner needs
    andon.toml:6:7: "run" has more than one place of the tests' ids
    --
    andon.toml:6:7: "run" has no {tests} or {list} or {regex}, the place of the tests' ids
    andon.toml:7:12: reports "../x": write a pattern beneath the working folder, such as "build/test-results/*/*.xml"
    andon.toml:7:20: reports "$(id)": write a pattern beneath the working folder, such as "build/test-results/*/*.xml"
    --
    andon.toml:6:7: "run" has {test} in quotes: each id is quoted already, write it bare
    --
    andon.toml:5:1: process = "shared" needs runner = "pytest", "jest" or "node"; other runners ask for a rebase themselves
    "#);
    accepted(&suite(
        "runner = \"junit\"\ndiscover = \"l\"\nrun = \"gradle test {tests:--tests}\"\nreports = [\"build/*/*.xml\"]",
    ));
    accepted(&suite("runner = \"node\"\nprocess = \"shared\"\nargs = [\"test\"]"));
}

#[test]
fn a_misspelt_key_is_said_once_and_not_missed_as_well() {
    let report =
        ["runer = \"pytest\"", "dicover = \"l\"\nrun = \"r {tests}\""].map(|more| problems(&suite(more)));
    insta::assert_snapshot!(report.join("\n--\n"), @r#"
    andon.toml:4:1: unknown key "runer" in [[suite]], did you mean "runner"?
    --
    andon.toml:4:1: unknown key "dicover" in [[suite]], did you mean "discover"?
    "#);
}

#[test]
fn shell_braces_in_a_command_are_left_alone() {
    accepted(&suite(
        "discover = \"l\"\nrun = \"for x in {a,b}; do awk '{print}' ${TESTS}; done; run {tests} > {junit}\"",
    ));
}

#[test]
fn what_needs_a_stack_says_so() {
    let text = format!("[baseline]\nseed = [\"x\"]\ninputs = [\"y\"]\n{}", suite("runner = \"pytest\""));
    insta::assert_snapshot!(problems(&text), @r#"
    andon.toml:2:1: "seed" without a stack: name the compose file under [stack]
    andon.toml:3:1: "inputs" without a stack: name the compose file under [stack]
    "#);
}

#[test]
fn a_file_that_is_no_text_or_too_large_is_refused() {
    let errors = parse(FILE_NAME, b"a = 1\nb = \"\xff\"").expect_err("not UTF-8");
    assert_eq!(errors.to_string(), "andon.toml:2:6: the file is not UTF-8 from here on");
    let errors = parse(FILE_NAME, &vec![b' '; FILE_BYTES_MAX + 1]).expect_err("too large");
    assert!(errors.to_string().contains("at most 524288"), "{errors}");
    assert!(problems("").contains("no suite"));
    assert!(problems("suite = []").contains("no suite"));
}

#[test]
fn a_seed_without_inputs_is_noted() {
    let text = format!(
        "[stack]\ncompose = \"c.yaml\"\n[baseline]\nseed = [\"x\"]\n{}",
        suite("runner = \"pytest\"")
    );
    let (_, notes) = parse(FILE_NAME, text.as_bytes()).unwrap();
    assert!(notes[0].to_string().starts_with("andon.toml:4:9: no \"inputs\""), "{notes:?}");
}

fn stepped(baseline: &str) -> String {
    format!("[stack]\ncompose = \"c.yaml\"\n[baseline]\n{baseline}\n{}", suite("runner = \"pytest\""))
}

#[test]
fn steps_come_in_order_and_seed_with_inputs_is_one_step() {
    let text = stepped(
        "seed_timeout = \"90s\"\n[[baseline.step]]\nname = \"load\"\nrun = [\"a\", \"b\"]\ninputs = [\"x\"]\n\
         [[baseline.step]]\nrun = [\"migrate\"]\ninputs = [\"migrations/**\"]\ngrows = true",
    );
    let baseline = accepted(&text).baseline;
    let [load, migrate] = baseline.steps.as_slice() else { panic!("two steps: {baseline:?}") };
    assert_eq!((load.name.as_str(), load.run.len(), load.grows), ("load", 2, false));
    assert_eq!(
        (migrate.name.as_str(), migrate.inputs[0].value.as_str(), migrate.grows),
        ("", "migrations/**", true)
    );
    assert_eq!(baseline.commands().map(|run| run.value.as_str()).collect::<Vec<_>>(), ["a", "b", "migrate"]);
    assert_eq!(baseline.seed_timeout, Duration::from_secs(90));

    let baseline = accepted(&stepped("seed = [\"a\", \"b\"]\ninputs = [\"x\"]")).baseline;
    assert_eq!((baseline.steps.len(), baseline.steps[0].run.len(), baseline.steps[0].grows), (1, 2, false));
    assert_eq!(accepted(&stepped("")).baseline.steps, []);
}

#[test]
fn mistakes_in_steps_come_at_once() {
    let text = stepped(
        r#"seed = ["x"]
inputs = ["a"]
[[baseline.step]]
inputs = ["/abs", "a["]
[[baseline.step]]
name = "load"
run = []
grow = true
[[baseline.step]]
name = "load"
run = ["", 5]
grows = true
[[baseline.step]]
name = "no name"
run = "x"
grows = "yes"
seed_timeout = "1s""#,
    );
    insta::assert_snapshot!(problems(&text), @r#"
    andon.toml:4:1: "seed" beside [[baseline.step]]: write it into the first step
    andon.toml:5:1: "inputs" beside [[baseline.step]]: write it into the first step
    andon.toml:6:1: the step has no "run": write its shell commands, in order
    andon.toml:7:11: input "/abs": write a path from the repository's root, such as "db/**"
    andon.toml:7:19: input "a[": unclosed character class; missing ']'
    andon.toml:10:1: "run" is empty: write the step's shell commands, in order
    andon.toml:11:1: unknown key "grow" in [[baseline.step]], did you mean "grows"?
    andon.toml:13:8: step "load" is on line 9 already
    andon.toml:14:8: a command of the step is empty
    andon.toml:14:12: "run" must be a string, not a number
    andon.toml:15:1: "grows" without "inputs": name the files whose number grows, such as "migrations/**"
    andon.toml:17:8: "no name" is no name for a step: up to 63 letters, digits, ".", "_" and "-", the first a letter or digit
    andon.toml:18:7: "run" must be a list of strings, not a string
    andon.toml:19:9: "grows" must be true or false, not a string
    andon.toml:20:1: unknown key "seed_timeout" in [[baseline.step]], it belongs in [baseline]
    "#);
    let many = "[[baseline.step]]\nrun = [\"x\"]\ninputs = [\"x\"]\n".repeat(STEPS_MAX + 1);
    assert_eq!(problems(&stepped(&many)), "andon.toml:4:12: 33 steps, at most 32 are taken");
    let unread = stepped("[[baseline.step]]\nrun = [\"x\"]");
    let (_, notes) = parse(FILE_NAME, unread.as_bytes()).unwrap();
    assert!(notes[0].to_string().starts_with("andon.toml:5:8: no \"inputs\""), "{notes:?}");
}

#[test]
fn names_are_fit_for_paths_and_hosts() {
    for name in ["shop", "a.b_c-d", "9"] {
        assert!(is_name(name), "{name}");
    }
    for name in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", &"x".repeat(64)] {
        assert!(!is_name(name), "{name}");
    }
}

/// Pieces of configuration, right and wrong, to be put together at random.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[stack]",
        "[[suite]]",
        "[baseline]",
        "[suite]",
        "[policy]",
        "compose",
        "image",
        "seed",
        "inputs",
        "name",
        "[[baseline.step]]",
        "grows",
        "run",
        "discover",
        "timeout",
        " = ",
        " = ",
        "\"60s\"",
        "\"{tests}\"",
        "1",
        "-1",
        "{ build = \".\" }",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "\"\"\"",
        "\n",
        "\n",
        "\\",
        "é",
        "\u{0}",
        "true",
        "1979-05-27",
        "1e999",
        "0x",
        "..",
        "#",
        ",",
        "[\"a[\"]",
    ];
    prop_oneof![proptest::sample::select(words.to_vec()).prop_map(str::to_owned), ".{0,4}"]
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(FILE_NAME, &bytes);
    }

    #[test]
    fn no_text_panics_and_every_problem_has_its_place(pieces in proptest::collection::vec(piece(), 0..60)) {
        let text = pieces.concat();
        if let Err(errors) = parse(FILE_NAME, text.as_bytes()) {
            prop_assert!(!errors.problems.is_empty());
            let lines = u32::try_from(text.matches('\n').count()).unwrap() + 1;
            for problem in &errors.problems {
                prop_assert!((1..=lines).contains(&problem.place.line), "{problem}");
                prop_assert!(!problem.to_string().chars().any(char::is_control), "{:?}", problem.to_string());
            }
        }
    }

    #[test]
    fn a_sample_with_one_byte_changed_does_not_panic(at in 0..SAMPLE.len(), byte in any::<u8>()) {
        let mut bytes = SAMPLE.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = parse(FILE_NAME, &bytes);
    }
}

#[test]
fn a_suites_own_limits_come_before_those_of_all() {
    let config = accepted(
        r#"
        [limits]
        memory = "1g"
        pids = 100
        disk = "512m"
        [[suite]]
        name = "a"
        image = "a"
        runner = "pytest"
        limits = { memory = "64m", cpus = 1.5, disk = "2g" }
        [[suite]]
        name = "b"
        image = "b"
        runner = "pytest"
        "#,
    );
    let limits: Vec<Limits> = config.suites.iter().map(|suite| suite.limits).collect();
    assert_eq!(
        limits[0],
        Limits { memory_bytes: 64 << 20, cpu_millis: 1500, pids: 100, disk_bytes: 2 << 30 }
    );
    assert_eq!(limits[1], Limits { memory_bytes: 1 << 30, cpu_millis: 0, pids: 100, disk_bytes: 512 << 20 });
}

#[test]
fn a_proof_is_a_command_or_a_known_servers_and_mistakes_are_named() {
    let config = accepted(
        r#"
        stack = { compose = "c.yaml" }
        [[baseline.proof]]
        service = "db"
        engine = "mysql"
        [[baseline.proof]]
        service = "app"
        run = "find /kept | sort"
        [[baseline.proof]]
        service = "app"
        run = "count"
        only_reads = true
        [[suite]]
        name = "s"
        image = "i"
        runner = "pytest"
        "#,
    );
    let proofs = &config.baseline.proofs;
    let services: Vec<_> = proofs.iter().map(|proof| proof.service.value.as_str()).collect();
    assert_eq!(services, ["db", "app", "app"]);
    assert!(proofs[0].run.contains("CHECKSUM TABLE") && proofs[1].run == "find /kept | sort");
    // Of a command of one's own nobody else knows.
    assert_eq!(proofs.iter().map(|proof| proof.only_reads).collect::<Vec<_>>(), [true, false, true]);
    for (proof, said) in [
        ("service = \"db\"", "has no \"run\""),
        ("run = \"x\"", "has no \"service\""),
        ("service = \"db\"\nrun = \"x\"\nengine = \"redis\"", "has both"),
        ("service = \"db\"\nengine = \"mssql\"", "postgresql"),
        ("service = \"db\"\nrun = \"x\"\nevery = 3", "every"),
    ] {
        let text = format!(
            "stack = {{ compose = \"c\" }}\n[[baseline.proof]]\n{proof}\n[[suite]]\nname = \"s\"\nimage = \"i\"\n\
             runner = \"pytest\"\n"
        );
        let errors = parse("andon.toml", text.as_bytes()).unwrap_err().to_string();
        assert!(errors.contains(said), "{proof}: {errors}");
    }
}

#[test]
fn a_mistake_in_each_word_of_a_long_file_is_told_of_at_once() {
    let keys: String = (0..30_000).map(|key| format!(", z{key:05} = 1")).collect();
    let one_line = format!("stack = {{ compose = \"c\"{keys} }}\n");
    let broken_lines: String = (0..30_000).map(|key| format!("z{key:05} = 1\n= 1\n")).collect();
    for text in [one_line, broken_lines] {
        let started = std::time::Instant::now();
        let errors = parse("andon.toml", text.as_bytes()).unwrap_err();
        assert_eq!(errors.problems.len(), 101, "the first hundred, and how many more");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[test]
fn lists_have_an_end() {
    let text = format!("[triggers]\nbranches = [{}]\n", "\"a\", ".repeat(1001));
    assert!(parse("andon.toml", text.as_bytes()).unwrap_err().to_string().contains("more than 1000 items"));
}

#[test]
fn processors_are_as_many_as_are_written_in_whatever_form() {
    let suite = "[[suite]]\nname = \"s\"\nimage = \"i\"\nrunner = \"pytest\"\n";
    for (written, millis) in [("2", 2000), ("0x10", 16_000), ("0o10", 8000), ("1_0", 10_000), ("0.5", 500)] {
        let config = accepted(&format!("limits = {{ cpus = {written} }}\n{suite}"));
        assert_eq!(config.suites[0].limits.cpu_millis, millis, "{written}");
    }
    for written in ["0x1000", "-1", "0", "nan", "1e9"] {
        let said = problems(&format!("limits = {{ cpus = {written} }}\n{suite}"));
        assert!(said.contains("a number of processors"), "{written}: {said}");
    }
}
