//! Which cases of a JUnit report belong to which test id.
//!
//! Pure. An id names a case by, in this order: `name`; `classname.name`, `classname::name` or `classname#name`; `file::name`;
//! pytest's `path/file.py::Class::name` (its own JUnit says `path.file.Class` and `name`); PHPUnit's `A\B::name` (`A.B`). Where no case has such a name, an id that
//! is a class, a file or a suite stands for all its cases. Invariant: a bare name that several cases share names none of
//! them unless no longer form exists for the report.

use std::collections::HashMap;

use super::junit::{Case, CaseOutcome};

/// The cases of a report, found by id.
#[derive(Debug)]
pub(crate) struct Index<'a> {
    cases: &'a [Case],
    exact: HashMap<String, Vec<usize>>,
    by_name: HashMap<&'a str, Vec<usize>>,
    groups: HashMap<&'a str, Vec<usize>>,
}

/// What a test amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    /// The worst of its cases.
    pub outcome: CaseOutcome,
    /// Of all its cases.
    pub ms: u64,
    /// Of the worst case.
    pub message: String,
    /// Of all its cases.
    pub log: String,
}

impl<'a> Index<'a> {
    /// Of a report's cases.
    #[must_use]
    pub(crate) fn new(cases: &'a [Case]) -> Self {
        let mut index =
            Self { cases, exact: HashMap::new(), by_name: HashMap::new(), groups: HashMap::new() };
        for (place, case) in cases.iter().enumerate() {
            index.by_name.entry(&case.name).or_default().push(place);
            for (scope, separators) in
                [(&case.classname, &[".", "::", "#", "/", " "][..]), (&case.file, &["::", ":"][..])]
            {
                if !scope.is_empty() {
                    for separator in separators {
                        index
                            .exact
                            .entry(format!("{scope}{separator}{}", case.name))
                            .or_default()
                            .push(place);
                    }
                }
            }
            let mut scopes = vec![&case.classname, &case.file, &case.suite];
            scopes.dedup();
            for scope in scopes.into_iter().filter(|scope| !scope.is_empty()) {
                index.groups.entry(scope).or_default().push(place);
            }
        }
        index
    }

    /// What the report says of a test; `None` where it says nothing.
    #[must_use]
    pub(crate) fn judge(&self, id: &str) -> Option<Judged> {
        let places = self.places(id)?;
        let worst = places.iter().map(|place| &self.cases[*place]).max_by_key(|case| case.outcome)?;
        // `max_by_key` answers with the last of the worst; people want the first.
        let first =
            places.iter().map(|place| &self.cases[*place]).find(|case| case.outcome == worst.outcome)?;
        Some(Judged {
            outcome: worst.outcome,
            ms: places.iter().map(|place| self.cases[*place].ms).fold(0, u64::saturating_add),
            message: first.message.clone(),
            log: places.iter().map(|place| self.cases[*place].log.as_str()).collect(),
        })
    }

    fn places(&self, id: &str) -> Option<&[usize]> {
        let by_name = self.by_name.get(id);
        if let Some(one) = by_name.filter(|places| places.len() == 1) {
            return Some(one);
        }
        // PHP's classes: `A\B::c`, and `A.B` in its reports.
        let dotted = || id.contains('\\').then(|| id.replace('\\', ".")).and_then(|id| self.exact.get(&id));
        let exact = self.exact.get(id).or_else(|| self.exact.get(&pytest_form(id)?)).or_else(dotted);
        exact.or(by_name).or_else(|| self.groups.get(id)).map(Vec::as_slice)
    }
}

/// `a/test_b.py::K::test_c[x::y]` as pytest's JUnit names it: `a.test_b.K.test_c[x::y]`.
fn pytest_form(id: &str) -> Option<String> {
    let (address, parameters) = match id.find('[') {
        Some(at) => id.split_at(at),
        None => (id, ""),
    };
    let (file, names) = address.split_once("::")?;
    let module = file.strip_suffix(".py").unwrap_or(file).replace('/', ".");
    Some(format!("{module}.{}{parameters}", names.replace("::", ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(file: &str, classname: &str, name: &str, outcome: CaseOutcome) -> Case {
        Case {
            name: name.into(),
            classname: classname.into(),
            file: file.into(),
            suite: "s".into(),
            ms: 5,
            outcome,
            message: format!("{name}!"),
            log: String::new(),
        }
    }

    #[test]
    fn every_usual_spelling_finds_its_case() {
        let cases = [
            case("t/a.rb", "Shop", "sells", CaseOutcome::Failed),
            case("t/b.rb", "Stock", "counts", CaseOutcome::Passed),
            case("", "t.test_a.TestK", "test_x[a::b]", CaseOutcome::Skipped),
        ];
        let index = Index::new(&cases);
        for id in ["sells", "Shop.sells", "Shop::sells", "Shop#sells", "t/a.rb::sells"] {
            assert_eq!(index.judge(id).unwrap().outcome, CaseOutcome::Failed, "{id}");
        }
        assert_eq!(index.judge("t/test_a.py::TestK::test_x[a::b]").unwrap().outcome, CaseOutcome::Skipped);
        assert_eq!(index.judge("Shop.buys"), None);
    }

    #[test]
    fn a_name_that_two_classes_share_is_told_apart_by_the_class() {
        let cases = [case("", "A", "x", CaseOutcome::Passed), case("", "B", "x", CaseOutcome::Failed)];
        let index = Index::new(&cases);
        assert_eq!(index.judge("A.x").unwrap().outcome, CaseOutcome::Passed);
        assert_eq!(index.judge("B.x").unwrap().outcome, CaseOutcome::Failed);
    }

    #[test]
    fn an_id_that_is_a_file_stands_for_its_worst_case_and_first_message() {
        let cases = [
            case("f.py", "A", "x", CaseOutcome::Passed),
            case("f.py", "A", "y", CaseOutcome::Failed),
            case("f.py", "A", "z", CaseOutcome::Failed),
        ];
        let judged = Index::new(&cases).judge("f.py").unwrap();
        assert_eq!((judged.outcome, judged.ms, judged.message.as_str()), (CaseOutcome::Failed, 15, "y!"));
    }
}
