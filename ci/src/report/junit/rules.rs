//! The rules of the schema by which Jenkins' xunit plugin validates reports (junit-10.xsd of its version 3), as a table.
//!
//! For tests. Stated here in our own form: which elements stand in which, which attributes each may have and must have, where
//! text may stand, and how a suite's time is written.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

struct Rule {
    element: &'static str,
    within: &'static [&'static str],
    must_have: &'static [&'static str],
    may_have: &'static [&'static str],
    text: bool,
}

const RERUN: (&[&str], &[&str]) = (&["type"], &["message"]);
const RESULT: (&[&str], &[&str]) = (&[], &["type", "message"]);
const RERUNS: &[&str] = &["rerunFailure", "rerunError", "flakyFailure", "flakyError"];
const PRINTED: &[&str] =
    &["testsuite", "testcase", "rerunFailure", "rerunError", "flakyFailure", "flakyError"];

const fn in_a_case(
    element: &'static str,
    (must_have, may_have): (&'static [&'static str], &'static [&'static str]),
) -> Rule {
    Rule { element, within: &["testcase"], must_have, may_have, text: true }
}

const fn printed(element: &'static str, within: &'static [&'static str]) -> Rule {
    Rule { element, within, must_have: &[], may_have: &[], text: true }
}

/// The root stands in nothing.
const RULES: [Rule; 15] = [
    Rule {
        element: "testsuites",
        within: &[""],
        must_have: &[],
        may_have: &["name", "time", "tests", "failures", "errors"],
        text: false,
    },
    Rule {
        element: "testsuite",
        within: &["", "testsuites", "testsuite"],
        must_have: &["name", "tests", "failures", "errors"],
        may_have: &[
            "group",
            "time",
            "skipped",
            "timestamp",
            "hostname",
            "id",
            "package",
            "file",
            "log",
            "url",
            "version",
        ],
        text: false,
    },
    Rule {
        element: "testcase",
        within: &["testsuite"],
        must_have: &["name"],
        may_have: &["time", "classname", "group"],
        text: false,
    },
    Rule { element: "properties", within: &["testsuite"], must_have: &[], may_have: &[], text: false },
    Rule {
        element: "property",
        within: &["properties"],
        must_have: &["name", "value"],
        may_have: &[],
        text: false,
    },
    in_a_case("failure", RESULT),
    in_a_case("error", RESULT),
    in_a_case("skipped", RESULT),
    in_a_case("rerunFailure", RERUN),
    in_a_case("rerunError", RERUN),
    in_a_case("flakyFailure", RERUN),
    in_a_case("flakyError", RERUN),
    printed("system-out", PRINTED),
    printed("system-err", PRINTED),
    printed("stackTrace", RERUNS),
];

/// What of a report is not as the schema wants it; empty where it is valid.
pub(super) fn broken(xml: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => path.push(element(&tag, &path, &mut broken)),
            Ok(Event::Empty(tag)) => {
                element(&tag, &path, &mut broken);
            }
            Ok(Event::End(_)) => {
                path.pop();
            }
            Ok(Event::Text(text)) => {
                let within = path.last().map_or("", String::as_str);
                let allowed = RULES.iter().any(|rule| rule.element == within && rule.text);
                if !allowed && !text.chars().all(char::is_whitespace) {
                    broken.push(format!("text within {within}"));
                }
            }
            Ok(Event::Eof) if path.is_empty() => return broken,
            Ok(Event::Eof) => {
                broken.push("it ends too early".to_owned());
                return broken;
            }
            Ok(_) => {}
            Err(error) => {
                broken.push(format!("it is no XML: {error}"));
                return broken;
            }
        }
    }
}

fn element(tag: &BytesStart<'_>, path: &[String], broken: &mut Vec<String>) -> String {
    let name = tag.name().as_ref().to_owned();
    let within = path.last().map_or("", String::as_str);
    let Some(rule) = RULES.iter().find(|rule| rule.element == name) else {
        broken.push(format!("the element {name}"));
        return name;
    };
    if !rule.within.contains(&within) {
        broken.push(format!("{name} within {within}"));
    }
    let mut seen = Vec::new();
    for attribute in tag.attributes() {
        let Ok(attribute) = attribute else {
            broken.push(format!("an attribute of {name} is no XML"));
            continue;
        };
        let key = attribute.key.as_ref().to_owned();
        if !rule.must_have.contains(&key.as_str()) && !rule.may_have.contains(&key.as_str()) {
            broken.push(format!("{name} has the attribute {key}"));
        }
        let value = attribute.value.into_owned();
        if key == "time" && name != "testcase" && !is_time(&value) {
            broken.push(format!("the time {value} of {name}"));
        }
        seen.push(key);
    }
    let absent = rule.must_have.iter().filter(|key| !seen.iter().any(|seen| seen == *key));
    broken.extend(absent.map(|key| format!("{name} has no {key}")));
    name
}

/// Digits, in groups or not, and at most three after a point.
fn is_time(text: &str) -> bool {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    whole.chars().all(|c| c.is_ascii_digit() || c == ',')
        && part.len() <= 3
        && part.chars().all(|c| c.is_ascii_digit())
}
