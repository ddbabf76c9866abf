//! The run command of a `command` suite: placeholders put in, once, quoted for a shell.
//!
//! Pure. Invariant: what a test is called never becomes shell syntax, and a name that looks like a placeholder is not one.

/// Where the path of the JUnit file goes.
pub(crate) const JUNIT: &str = "{junit}";

/// Whether the command writes a JUnit file.
#[must_use]
pub(crate) fn writes_junit(template: &str) -> bool {
    template.contains(JUNIT)
}

/// One word for a POSIX shell.
#[must_use]
pub(crate) fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=,+@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The command with its placeholders replaced in one pass:
///
/// | place | becomes |
/// | --- | --- |
/// | `{tests}`, `{test}` | the ids, each a word |
/// | `{tests:--only}` | the ids, each a word, with the word `--only` before each |
/// | `{list}` | one word: the ids with commas between |
/// | `{regex}` | one word: a regular expression that matches the ids and nothing else |
/// | `{junit}` | the path of the report |
#[must_use]
pub(crate) fn expand<'a>(template: &str, tests: impl IntoIterator<Item = &'a str>, junit: &str) -> String {
    let ids: Vec<&str> = tests.into_iter().collect();
    let mut command =
        String::with_capacity(template.len() + ids.iter().map(|id| id.len() + 3).sum::<usize>());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        command.push_str(&rest[..at]);
        rest = &rest[at..];
        let place = rest[1..].find(['{', '}']).filter(|end| rest[1 + end..].starts_with('}'));
        match place.and_then(|end| Some((end, filled(&rest[1..=end], &ids, junit)?))) {
            Some((end, words)) => {
                command.push_str(&words);
                rest = &rest[end + 2..];
            }
            None => {
                command.push('{');
                rest = &rest[1..];
            }
        }
    }
    command.push_str(rest);
    command
}

/// What becomes of a place; `None` where it is none.
fn filled(place: &str, ids: &[&str], junit: &str) -> Option<String> {
    let words = |prefix: &str| {
        let word = |id: &&str| format!("{prefix}{}", quote(id));
        ids.iter().map(word).collect::<Vec<_>>().join(" ")
    };
    Some(match place {
        "tests" | "test" => words(""),
        "list" => quote(&ids.join(",")),
        "regex" => quote(&alternatives(ids)),
        "junit" => quote(junit),
        _ => words(&format!("{} ", quote(place.strip_prefix("tests:")?))),
    })
}

/// A regular expression that matches these texts whole, as POSIX (extended), Perl, Go, Rust and JavaScript read it.
#[must_use]
pub(crate) fn alternatives(texts: &[&str]) -> String {
    let escaped: Vec<String> = texts.iter().map(|text| literal(text)).collect();
    format!("^({})$", escaped.join("|"))
}

/// A regular expression that matches this text.
#[must_use]
pub(crate) fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if r"\.+*?()|[]{}^$/".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn placeholders_are_replaced_once_and_other_braces_stay() {
        let command = expand("run ${X} {junit} {tests} {}", ["{junit}", "a b"], "/out/j.xml");
        assert_eq!(command, "run ${X} /out/j.xml '{junit}' 'a b' {}");
    }

    #[test]
    fn ids_take_the_form_that_a_tool_wants() {
        let ids = ["a.b(1)", "it's"];
        assert_eq!(expand("g {tests:--tests}", ids, ""), "g --tests 'a.b(1)' --tests 'it'\\''s'");
        assert_eq!(expand("m -Dtest={list}", ids, ""), "m -Dtest='a.b(1),it'\\''s'");
        assert_eq!(expand("c -R {regex}", ids, ""), "c -R '^(a\\.b\\(1\\)|it'\\''s)$'");
        assert_eq!(expand("{tests:a{b} {other} {tests", ids, ""), "{tests:a{b} {other} {tests");
    }

    #[test]
    fn a_command_without_placeholders_stays_as_it_is() {
        assert_eq!(expand("make check", ["x"], "j"), "make check");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_hands_every_name_on_unchanged(names in proptest::collection::vec("[^\\x00]{1,40}", 1..6)) {
            let command = expand("printf '%s\\000' {tests}", names.iter().map(String::as_str), "j");
            let output = Command::new("sh").arg("-c").arg(&command).output().unwrap();
            prop_assert!(output.status.success());
            let expected: Vec<u8> = names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
            prop_assert_eq!(output.stdout, expected);
        }
    }
}
