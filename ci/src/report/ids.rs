//! Test ids, taken apart for reports: `path::Class::name[param]` as pytest writes it, anything else as a whole.
//!
//! Only for showing and grouping: what is sent to the farm is always the id itself.

/// The parts of a test id that report formats ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// The file, where the id names one.
    pub(crate) file: Option<&'a str>,
    /// `tests.test_a.TestX`: the file as a module path and the classes, as pytest's own JUnit writes it.
    pub(crate) classname: Option<String>,
    /// The function with its parameters; the whole id where it has no structure.
    pub(crate) name: &'a str,
}

/// Takes an id apart. Parameters may hold `::` and brackets themselves, so only what is before the first `[` of
/// the part after the file is split.
pub(crate) fn parts(id: &str) -> Parts<'_> {
    let whole = Parts { file: None, classname: None, name: id };
    let Some((file, rest)) = id.split_once("::") else { return whole };
    if file.is_empty() || rest.is_empty() || file.contains('[') {
        return whole;
    }
    let (path, _) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
    let name_at = path.rfind("::").map_or(0, |at| at + 2);
    let classes = path[..name_at].trim_end_matches("::");
    let name = &rest[name_at..];
    if name.is_empty() {
        return whole;
    }
    let module = file.strip_suffix(".py").unwrap_or(file).replace('/', ".");
    let classname =
        if classes.is_empty() { module } else { format!("{module}.{}", classes.replace("::", ".")) };
    Parts { file: Some(file), classname: Some(classname), name }
}

/// `suite/id`, as `andon rerun` and `andon logs` take it.
pub(crate) fn full(suite: &str, id: &str) -> String {
    format!("{suite}/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(id: &str) -> (Option<&str>, Option<String>, &str) {
        let Parts { file, classname, name } = parts(id);
        (file, classname, name)
    }

    #[test]
    fn pytest_ids_give_file_class_and_name() {
        let module = |file, class: &str, name| (Some(file), Some(class.to_owned()), name);
        assert_eq!(split("tests/test_a.py::test_x"), module("tests/test_a.py", "tests.test_a", "test_x"));
        assert_eq!(
            split("tests/test_a.py::TestX::Inner::test_y[1-b]"),
            module("tests/test_a.py", "tests.test_a.TestX.Inner", "test_y[1-b]")
        );
    }

    #[test]
    fn parameters_may_look_like_structure() {
        assert_eq!(split("a.py::T::x[b::c]").2, "x[b::c]");
        assert_eq!(split("a.py::x[[::]]").2, "x[[::]]");
        assert_eq!(split("a.py::x[a/b.py::y]").0, Some("a.py"));
    }

    #[test]
    fn other_ids_stay_whole() {
        for id in ["", "test one", "::", "a::", "::b", "x[a::b]", "a::T::"] {
            assert_eq!(split(id), (None, None, id), "{id:?}");
        }
    }
}
