//! What a project says of tests that may fail without blocking. The core hands it on with the plan and decides nothing by it: whether a
//! failure of a test is excused comes with the [`Candidate`](crate::model::Candidate), from who knows its history.

use crate::asked::Pattern;

/// Tests that may fail without blocking, until a time; somebody owns that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Only of this suite.
    pub suite: Option<String>,
    /// Which tests.
    pub tests: Pattern,
    /// Who looks after it.
    pub owner: String,
    /// It has ended from then on, UTC.
    pub until_unix_ms: u64,
    /// For a person; may be empty.
    pub reason: String,
}

impl Quarantine {
    /// Whether it is about this test.
    #[must_use]
    pub fn names(&self, suite: &str, id: &str) -> bool {
        self.suite.as_deref().is_none_or(|of| of == suite) && self.tests.names(suite, id)
    }

    /// The first that is about this test.
    #[must_use]
    pub fn of<'a>(all: &'a [Self], suite: &str, id: &str) -> Option<&'a Self> {
        all.iter().find(|quarantine| quarantine.names(suite, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_names_a_test_is_its_quarantine() {
        let quarantine = |suite: Option<&str>, tests, owner: &str| Quarantine {
            suite: suite.map(str::to_owned),
            tests,
            owner: owner.into(),
            until_unix_ms: 1,
            reason: String::new(),
        };
        let all = [
            quarantine(Some("ui"), Pattern::Exact("a.py::x".into()), "@ui"),
            quarantine(None, Pattern::Glob("a.py::*".into()), "@a"),
        ];
        let owner = |suite, id| Quarantine::of(&all, suite, id).map(|found| found.owner.as_str());
        assert_eq!(owner("ui", "a.py::x"), Some("@ui"));
        assert_eq!(owner("it", "a.py::x"), Some("@a"));
        assert_eq!(owner("ui", "a.py::y"), Some("@a"));
        assert_eq!(owner("it", "b.py::x"), None);
    }
}
