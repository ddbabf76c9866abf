//! The run command of a `command` suite: placeholders put in, once, quoted for a shell.
//!
//! Pure. Invariant: what a test is called never becomes shell syntax, and a name that looks like a placeholder is not one.

/// Where the ids go.
pub(crate) const TESTS: &str = "{tests}";
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

/// The command with its placeholders replaced in one pass.
#[must_use]
pub(crate) fn expand<'a>(template: &str, tests: impl IntoIterator<Item = &'a str>, junit: &str) -> String {
    let words: Vec<String> = tests.into_iter().map(quote).collect();
    let tests = words.join(" ");
    let mut command = String::with_capacity(template.len() + tests.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        command.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(TESTS) {
            command.push_str(&tests);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(JUNIT) {
            command.push_str(&quote(junit));
            rest = after;
        } else {
            command.push('{');
            rest = &rest[1..];
        }
    }
    command.push_str(rest);
    command
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
