//! The schema and the parser say the same. What the parser knows is asked of the parser: it names its keys and words itself,
//! in what it says of wrong ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::Value;

use super::super::andon_toml::HOMES;
use super::super::check::PAIRS_MAX;
use super::super::runner::{KEYS, REPORTS_MAX};
use super::super::{FILE_NAME, STEPS_MAX, SUITES_MAX, parse, proof};
use super::*;
use crate::testing::SAMPLE;

/// Each table of the schema, and a file with a line in that table. What else is wrong with the file does not matter.
const TABLES: [(&str, &str); 12] = [
    ("", "{}\n"),
    ("stack", "[stack]\n{}\n"),
    ("baseline", "[baseline]\n{}\n"),
    ("step", "[[baseline.step]]\n{}\n"),
    ("proof", "[[baseline.proof]]\n{}\n"),
    ("suite", "[[suite]]\n{}\n"),
    ("image", "[[suite]]\n[suite.image]\n{}\n"),
    ("quarantine", "[[quarantine]]\n{}\n"),
    ("policy", "[policy]\n{}\n"),
    ("triggers", "[triggers]\n{}\n"),
    ("limits", "[limits]\n{}\n"),
    ("limits", "[[suite]]\n[suite.limits]\n{}\n"),
];
/// Near to no key and no word.
const STRANGE: &str = "zzzzzz";

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
}

fn validator() -> Validator {
    jsonschema::draft7::new(&schema()).expect("the schema is one")
}

fn table<'s>(schema: &'s Value, name: &str) -> &'s Value {
    if name.is_empty() { schema } else { &schema["definitions"][name] }
}

fn keys(table: &Value) -> BTreeSet<String> {
    table["properties"].as_object().expect("a table has keys").keys().cloned().collect()
}

fn with_line(file: &str, line: &str) -> String {
    file.replace("{}", line)
}

fn said(text: &str) -> String {
    parse(FILE_NAME, text.as_bytes()).err().map(|errors| errors.to_string()).unwrap_or_default()
}

/// The words in quotes that follow `mark` on the line that holds it and `of`.
fn words_after(said: &str, of: &str, mark: &str) -> BTreeSet<String> {
    let line = said.lines().find(|line| line.contains(of) && line.contains(mark));
    let line = line.unwrap_or_else(|| panic!("nothing is said of {of}: {said}"));
    let (_, after) = line.split_once(mark).expect("the line was chosen by it");
    after.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What the parser would do with it, and what the schema would.
fn verdicts(validator: &Validator, text: &str) -> (bool, bool) {
    let json = toml::from_str::<Value>(text).expect("the test's file is TOML");
    (parse(FILE_NAME, text.as_bytes()).is_ok(), validator.is_valid(&json))
}

#[test]
fn every_key_of_the_parser_is_in_the_schema_and_the_other_way_round() {
    let schema = schema();
    for (name, file) in TABLES {
        let said = said(&with_line(file, &format!("{STRANGE} = 1")));
        let parsers = words_after(&said, &format!("unknown key \"{STRANGE}\""), "; known are ");
        assert_eq!(parsers, keys(table(&schema, name)), "{name}");
    }
    let closed = |table: &&Value| table["additionalProperties"] == Value::Bool(false);
    let definitions = schema["definitions"].as_object().unwrap();
    let tables: BTreeSet<&str> =
        TABLES.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
    let closed: BTreeSet<&str> =
        definitions.iter().filter(|(_, table)| closed(table)).map(|(name, _)| name.as_str()).collect();
    assert_eq!(closed, tables, "a table of the schema is not held against the parser");
}

#[test]
fn the_hints_where_a_key_belongs_know_every_key() {
    let schema = schema();
    let named: BTreeMap<&str, &str> = HOMES
        .iter()
        .map(|(title, _)| {
            let name = title.trim_matches(['[', ']']).rsplit('.').next().unwrap_or_default();
            (*title, if title.starts_with('[') { name } else { "" })
        })
        .collect();
    for (title, known) in HOMES {
        let known: BTreeSet<String> = known.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(known, keys(table(&schema, named[title])), "{title}");
    }
}

#[test]
fn words_to_choose_from_are_the_same() {
    let schema = schema();
    let of = |value: &Value| -> BTreeSet<String> {
        value["enum"]
            .as_array()
            .expect("a choice")
            .iter()
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    let suite = &schema["definitions"]["suite"]["properties"];
    for (words, file) in [
        (of(&suite["runner"]), format!("[[suite]]\nrunner = \"{STRANGE}\"\n")),
        (of(&suite["rebase"]), format!("[[suite]]\nrebase = \"{STRANGE}\"\n")),
        (of(&suite["process"]), format!("[[suite]]\nprocess = \"{STRANGE}\"\n")),
        (
            of(&schema["definitions"]["policy"]["properties"]["keep"]),
            format!("[policy]\nkeep = \"{STRANGE}\"\n"),
        ),
        (of(&schema["definitions"]["engine"]), format!("[[baseline.proof]]\nengine = \"{STRANGE}\"\n")),
        (of(&schema["definitions"]["engine"]), format!("[stack]\nquick = {{ db = \"{STRANGE}\" }}\n")),
    ] {
        assert_eq!(words_after(&said(&file), &format!("is \"{STRANGE}\""), ": write "), words, "{file}");
    }
}

#[test]
fn whole_numbers_have_the_same_bounds() {
    let schema = schema();
    let mut looked_at = 0;
    for (name, file) in TABLES {
        for (key, value) in table(&schema, name)["properties"].as_object().unwrap() {
            if value["type"] != "integer" {
                continue;
            }
            let bound = |which: &str| value[which].as_i64().expect("a number has its bounds");
            let refused = |number: i64| {
                said(&with_line(file, &format!("{key} = {number}"))).contains(&format!("{key:?} is {number}"))
            };
            for (number, wrong) in [
                (bound("minimum") - 1, true),
                (bound("minimum"), false),
                (bound("maximum"), false),
                (bound("maximum") + 1, true),
            ] {
                assert_eq!(refused(number), wrong, "{name}: {key} = {number}");
            }
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 6, "max_failures, retry_budget, keep_max, retries, and pids twice");
}

#[test]
fn lists_and_tables_may_be_as_long() {
    let schema = schema();
    let at = |path: &str| {
        schema.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}")) as usize
    };
    assert_eq!(at("/properties/suite/maxItems"), SUITES_MAX);
    assert_eq!(at("/definitions/baseline/properties/step/maxItems"), STEPS_MAX);
    assert_eq!(at("/definitions/baseline/properties/proof/maxItems"), proof::PROOFS_MAX);
    assert_eq!(at("/definitions/suite/properties/reports/maxItems"), REPORTS_MAX);
    for pairs in ["suite/properties/env", "baseline/properties/labels", "image/properties/args"] {
        assert_eq!(at(&format!("/definitions/{pairs}/maxProperties")), PAIRS_MAX);
    }
}

#[test]
fn which_keys_a_runner_takes_is_the_same_in_every_combination() {
    let validator = validator();
    let lines = |key: &str| match key {
        "command" => "command = \"tool\"",
        "args" => "args = [\"-q\"]",
        "discover" => "discover = \"list\"",
        "run" => "run = \"tool {tests}\"",
        "reports" => "reports = [\"out/*.xml\"]",
        other => panic!("{other} is new: say how it is written"),
    };
    let mut names: Vec<String> =
        andon_worker::runner::catalogue().map(|facts| facts.name.to_owned()).collect();
    names.push(String::new());
    for runner in &names {
        for chosen in 0..1_u32 << KEYS.len() {
            let mut file = "[[suite]]\nname = \"s\"\nimage = \"i:1\"\n".to_owned();
            if !runner.is_empty() {
                file.push_str(&format!("runner = \"{runner}\"\n"));
            }
            for (_, key) in KEYS.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0) {
                file.push_str(lines(key));
                file.push('\n');
            }
            let (parser, schema) = verdicts(&validator, &file);
            assert_eq!(schema, parser, "{file}{}", said(&file));
        }
        for rebase in ["", "rebase = \"test\"", "rebase = \"class\""] {
            let options = if ["junit", "tap", "command", ""].contains(&runner.as_str()) {
                "discover = \"list\"\nrun = \"tool {tests}\"\n"
            } else {
                ""
            };
            let reports = if runner == "junit" { "reports = [\"x.xml\"]\n" } else { "" };
            let named = if runner.is_empty() { String::new() } else { format!("runner = \"{runner}\"\n") };
            let file = format!(
                "[[suite]]\nname = \"s\"\nimage = \"i:1\"\n{named}{options}{reports}{rebase}\nprocess = \"shared\"\n"
            );
            let (parser, schema) = verdicts(&validator, &file);
            assert_eq!(schema, parser, "{file}{}", said(&file));
        }
    }
}

/// A suite, with one more line at the end of it.
fn suite(more: &str) -> String {
    format!("[[suite]]\nname = \"s\"\nimage = \"i:1\"\nrunner = \"pytest\"\n{more}\n")
}

/// A whole project, with a line under `[baseline]`.
fn baseline(more: &str) -> String {
    format!("{}[stack]\ncompose = \"c.yaml\"\n[baseline]\n{more}\n", suite(""))
}

#[test]
fn what_is_right_is_right_for_both() {
    let validator = validator();
    let right = [
        SAMPLE.to_owned(),
        suite(""),
        suite("timeout = \"1h5m30s20ms\""),
        suite("timeout = \" 1.5s \""),
        suite("retries = 10\nworkdir = \"/srv/src\"\ndocker = true"),
        suite("env = { TZ = \"UTC\", _x1 = \"\" }"),
        suite("egress = [\"pypi.org:443\", \"*.example.com:443\", \"10.0.0.5:5432\", \"[::1]:80\"]"),
        suite("limits = { memory = \"64 MB\", cpus = 0.5, pids = 1, disk = \"4m\" }"),
        suite("limits = { cpus = 1024 }\n[limits]\nmemory = \"1g\"\n[policy]\nmerge = false\nmax_failures = 1"),
        suite("[triggers]\nbranches = [\"main\", \"release/*\", \"v[0-9]\"]"),
        "[[suite]]\nname = \"s\"\nimage = { build = \"./a/../b\", target = \"t\", args = { A = \"\" } }\nrunner = \"go\"\n"
            .to_owned(),
        baseline("seed = [\"x\"]\ninputs = [\"db/**\", \"a/.hidden\"]\nseed_timeout = \"2m\""),
        baseline("labels = { team = \"shop\", \"a.b/c\" = \"\" }"),
        baseline("[[baseline.step]]\nrun = [\"x\"]\ngrows = true\ninputs = [\"m/**\"]\nkeep = false\nname = \"a-1\""),
        baseline("[[baseline.proof]]\nservice = \"db\"\nrun = \"x\"\n[[baseline.proof]]\nservice = \"c\"\nengine = \"redis\"\nonly_reads = false"),
        suite("[stack]\ncompose = \"c.yaml\"\nquick = { db = \"mysql\", pg = \"postgresql\" }"),
        suite("[baseline]\nseed_timeout = \"1s\""),
    ];
    for file in right {
        assert_eq!(verdicts(&validator, &file), (true, true), "{file}{}", said(&file));
    }
}

#[test]
fn what_is_wrong_is_wrong_for_both() {
    let validator = validator();
    let wrong = [
        String::new(),
        "suite = []\n".to_owned(),
        "[[suite]]\nname = \"s\"\nrunner = \"go\"\n".to_owned(),
        "[[suite]]\nimage = \"i\"\nrunner = \"go\"\n".to_owned(),
        "[[suite]]\nname = \"a b\"\nimage = \"i\"\nrunner = \"go\"\n".to_owned(),
        "[[suite]]\nname = \"s\"\nimage = \"-i\"\nrunner = \"go\"\n".to_owned(),
        "[[suite]]\nname = \"s\"\nimage = 1\nrunner = \"go\"\n".to_owned(),
        "[[suite]]\nname = \"s\"\nimage = { dockerfile = \"x\" }\nrunner = \"go\"\n".to_owned(),
        "[[suite]]\nname = \"s\"\nimage = { build = \"/etc\" }\nrunner = \"go\"\n".to_owned(),
        suite("retires = 1"),
        suite("retries = 11"),
        suite("retries = \"1\""),
        suite("timeout = 60"),
        suite("timeout = \"60\""),
        suite("timeout = \"1d\""),
        suite("docker = \"yes\""),
        suite("rebase = \"tests\""),
        suite("workdir = \"/\""),
        suite("workdir = \"src\""),
        suite("workdir = \"/a/../b\""),
        suite("workdir = \"/a//b\""),
        suite("env = { ANDON_X = \"1\" }"),
        suite("env = { \"a-b\" = \"1\" }"),
        suite("env = { A = 1 }"),
        suite("egress = [\"pypi.org\"]"),
        suite("limits = { memory = \"1t\" }"),
        suite("limits = { memory = 64 }"),
        suite("limits = { cpus = 0 }"),
        suite("limits = { cpus = \"2\" }"),
        suite("limits = { pids = 0 }"),
        suite("limits = { swap = \"1g\" }"),
        suite("[policy]\nmax_failures = 0"),
        suite("[policy]\nfail_fast = 1"),
        suite("[triggers]\nbranches = [\"refs/heads/main\"]"),
        suite("[triggers]\nbranches = [\"\"]"),
        suite("[triggers]\nbranches = \"main\""),
        suite("[stack]\nquick = { db = \"mysql\" }"),
        suite("[stack]\ncompose = \"/etc/c.yaml\""),
        suite("[stack]\ncompose = \"c.yaml\"\nquick = { db = \"oracle\" }"),
        suite("[baseline]\nseed = [\"x\"]"),
        suite("[[baseline.proof]]\nservice = \"db\"\nrun = \"x\""),
        baseline("seed = [\" \"]"),
        baseline("seed = \"x\""),
        baseline("inputs = [\"../x\"]"),
        baseline("inputs = [\"/x\"]"),
        baseline("labels = { \"a b\" = \"x\" }"),
        baseline("labels = { \"dev.andon.x\" = \"x\" }"),
        baseline("seed = [\"x\"]\n[[baseline.step]]\nrun = [\"x\"]"),
        baseline("[[baseline.step]]\nrun = []"),
        baseline("[[baseline.step]]\ninputs = [\"x\"]"),
        baseline("[[baseline.step]]\nrun = [\"x\"]\ngrows = true"),
        baseline("[[baseline.proof]]\nservice = \"db\""),
        baseline("[[baseline.proof]]\nservice = \"db\"\nrun = \"x\"\nengine = \"mysql\""),
        baseline("[[baseline.proof]]\nrun = \"x\""),
        baseline("[[baseline.proof]]\nservice = \"db\"\nrun = \"x\"\nonly_reads = \"yes\""),
    ];
    for file in wrong {
        assert_eq!(verdicts(&validator, &file), (false, false), "{file}");
    }
}

#[test]
fn the_repositorys_own_files_are_right_for_both() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let validator = validator();
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["tests/fixtures", "ci/sample"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("the folder is there") {
            let file = entry.expect("it can be read").path().join(FILE_NAME);
            files.extend(file.is_file().then_some(file));
        }
    }
    assert!(files.len() >= 16, "only {} files were found", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("the file is text");
        assert_eq!(verdicts(&validator, &text), (true, true), "{}: {}", file.display(), said(&text));
    }
}

#[test]
fn every_key_is_explained() {
    let schema = schema();
    for (name, _) in TABLES {
        for (key, value) in table(&schema, name)["properties"].as_object().unwrap() {
            let own = &value["description"];
            let named = value["$ref"]
                .as_str()
                .map(|path| &schema.pointer(path.trim_start_matches('#')).unwrap()["description"]);
            assert!(own.is_string() || named.is_some_and(Value::is_string), "{name}: {key} is not explained");
        }
    }
}
