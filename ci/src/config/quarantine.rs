//! `[[quarantine]]`: tests that may fail without blocking, each with an owner and an end.
//!
//! Whether an end is too far ahead, who knows the time says (`spec`).

use std::time::{Duration, UNIX_EPOCH};

use andon_figures::quarantine::{OWNER_MAX, Quarantine as Held};
use toml::de::DeValue;

use super::andon_toml::HOMES;
use super::problem::{Findings, quoted};
use super::table::{Table, wrong_type};
use super::{Located, Suite};

/// The most quarantines of a project.
pub const QUARANTINES_MAX: usize = 500;
/// The longest name or pattern, in bytes: as long as a test's id may be, with its suite.
const TESTS_LEN_MAX: usize = 4_096;
/// The longest reason, in bytes.
const REASON_LEN_MAX: usize = 1_000;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// What an end must look like.
const UNTIL_FORM: &str = "a day, as in until = 2026-12-31";

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Only of this suite.
    pub suite: Option<String>,
    /// Which tests.
    pub tests: Tests,
    /// Who looks after it.
    pub owner: String,
    /// The end of its last day, UTC, in milliseconds since 1970; where that was written.
    pub until_unix_ms: Located<u64>,
    /// May be empty.
    pub reason: String,
}

/// Of `suite/id` or of `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tests {
    /// It is this.
    Test(String),
    /// `*` is any text, `?` any character.
    Pattern(String),
}

/// The quarantines, as far as they are not wrong.
pub(super) fn read(
    findings: &mut Findings<'_>,
    top: &mut Table<'_, '_>,
    suites: &[Suite],
) -> Vec<Quarantine> {
    let tables = top.tables(findings, "quarantine", "[[quarantine]]");
    if tables.len() > QUARANTINES_MAX {
        let place = top.place_of(findings, "quarantine");
        findings.problem(place, format!("{} quarantines, at most {QUARANTINES_MAX} are taken", tables.len()));
    }
    let tables = tables.into_iter().take(QUARANTINES_MAX);
    tables.filter_map(|table| quarantine(findings, table, suites)).collect()
}

fn quarantine(findings: &mut Findings<'_>, mut table: Table<'_, '_>, suites: &[Suite]) -> Option<Quarantine> {
    let (test, pattern) = (table.text(findings, "test"), table.text(findings, "pattern"));
    if table.has("test") == table.has("pattern") {
        let message = "the quarantine needs one of \"test\", an id, and \"pattern\", in which * is any text";
        findings.problem(table.place(), message);
    }
    let tests = test.map(|text| (text.clone(), Tests::Test(text.value)));
    let tests = tests.or_else(|| pattern.map(|text| (text.clone(), Tests::Pattern(text.value))));
    if let Some((text, _)) = tests.as_ref().filter(|(text, _)| text.value.len() > TESTS_LEN_MAX) {
        findings.problem(text.place.clone(), format!("it is longer than {TESTS_LEN_MAX} bytes"));
    }
    let suite = table.text(findings, "suite");
    if let Some(suite) = suite.as_ref().filter(|name| !suites.iter().any(|known| known.name == name.value)) {
        let message = format!("there is no suite {}", quoted(&suite.value));
        findings.problem(suite.place.clone(), message);
    }
    table.require(findings, "owner", "the quarantine has no \"owner\": name who looks after it");
    let owner = table.text(findings, "owner");
    if let Some(owner) = owner.as_ref().filter(|owner| Held::new(&owner.value, 0, 1).is_err()) {
        let message = format!("the owner is no name of at most {OWNER_MAX} bytes without control characters");
        findings.problem(owner.place.clone(), message);
    }
    let until_unix_ms = until(findings, &mut table);
    let reason = table.text(findings, "reason");
    if let Some(reason) = reason.as_ref().filter(|reason| reason.value.len() > REASON_LEN_MAX) {
        findings.problem(reason.place.clone(), format!("the reason is longer than {REASON_LEN_MAX} bytes"));
    }
    table.finish(findings, &HOMES);
    Some(Quarantine {
        suite: suite.map(|suite| suite.value),
        tests: tests?.1,
        owner: owner?.value.trim().to_owned(),
        until_unix_ms: until_unix_ms?,
        reason: reason.map_or_else(String::new, |reason| reason.value),
    })
}

fn until(findings: &mut Findings<'_>, table: &mut Table<'_, '_>) -> Option<Located<u64>> {
    let place = table.place_of(findings, "until");
    let Some(value) = table.any("until") else {
        let message = format!("the quarantine has no \"until\": write {UNTIL_FORM}; it ends with that day");
        table.require(findings, "until", &message);
        return None;
    };
    let day = match value.get_ref() {
        DeValue::Datetime(written) => match (written.date, written.time) {
            (Some(day), None) => day.to_string(),
            _ => {
                findings.problem(place, format!("\"until\" is {written}: write {UNTIL_FORM}"));
                return None;
            }
        },
        DeValue::String(text) => text.to_string(),
        _ => {
            wrong_type(findings, "until", value, UNTIL_FORM);
            return None;
        }
    };
    let begins = humantime::parse_rfc3339(&format!("{day}T00:00:00Z")).ok();
    let begins = begins.and_then(|begins| begins.duration_since(UNIX_EPOCH).ok()).filter(|_| day.len() == 10);
    match begins.and_then(|begins| u64::try_from((begins + DAY).as_millis()).ok()) {
        Some(value) => Some(Located { value, place }),
        None => {
            findings.problem(place, format!("\"until\" is {}: write {UNTIL_FORM}", quoted(&day)));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const SUITE: &str = "[[suite]]\nname = \"it\"\nimage = \"a:1\"\ndiscover = \"ls\"\nrun = \"sh {tests}\"\n[[quarantine]]\n";

    fn parsed(lines: &str) -> Result<Vec<Quarantine>, String> {
        match config::parse("andon.toml", format!("{SUITE}{lines}").as_bytes()) {
            Ok((config, _)) => Ok(config.quarantines),
            Err(errors) => Err(errors.to_string()),
        }
    }

    #[test]
    fn a_quarantine_has_tests_an_owner_and_a_last_day() {
        let all = "test = \"a.py::x\"\nsuite = \"it\"\nowner = \"@shop/cart\"\nuntil = 2027-01-14\nreason = \"#7\"\n";
        let read = parsed(all).expect("it is right").remove(0);
        assert_eq!(read.tests, Tests::Test("a.py::x".into()));
        assert_eq!((read.suite.as_deref(), read.owner.as_str()), (Some("it"), "@shop/cart"));
        assert_eq!((read.until_unix_ms.value, read.reason.as_str()), (1_799_971_200_000, "#7"));
        assert_eq!(read.until_unix_ms.place.line, 10);
        let least = parsed("pattern = \"a.py::*\"\nowner = \"ann\"\nuntil = \"2027-01-14\"\n");
        let least = least.expect("it is right").remove(0);
        assert_eq!((least.tests, least.suite), (Tests::Pattern("a.py::*".into()), None));
        assert_eq!(least.until_unix_ms.value, 1_799_971_200_000);
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused_by_name() {
        let fit = ["test = \"x\"\n", "owner = \"@a\"\n", "until = 2027-01-14\n"];
        let without = |at: usize, instead: &str| {
            let lines: Vec<&str> = fit
                .iter()
                .enumerate()
                .map(|(place, line)| if place == at { instead } else { line })
                .collect();
            parsed(&lines.concat()).expect_err(instead)
        };
        assert!(without(0, "").contains("needs one of \"test\""));
        assert!(without(0, "test = \"x\"\npattern = \"y\"\n").contains("needs one of \"test\""));
        assert!(without(1, "").contains("has no \"owner\""));
        assert!(without(1, "owner = \" \"\n").contains("\"owner\" is empty"));
        assert!(without(1, &format!("owner = \"{}\"\n", "x".repeat(300))).contains("the owner is no name"));
        assert!(without(2, "").contains("has no \"until\""));
        for wrong in ["\"soon\"", "\"2027-02-30\"", "2027-01-14T10:00:00Z", "90", "\"2027-01-14T00:00:00\""] {
            let said = without(2, &format!("until = {wrong}\n"));
            assert!(said.contains("until"), "{wrong}: {said}");
        }
        assert!(without(0, "test = \"x\"\nsuite = \"ui\"\n").contains("there is no suite"));
        assert!(without(0, "test = \"x\"\nuntill = 1\n").contains("did you mean \"until\"?"));
    }
}
