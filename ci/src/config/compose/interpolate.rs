//! Compose's `${VAR:-default}`, with the default always taken: a run must not depend on a machine's environment.
//!
//! `$$` is a dollar sign. Everything else that begins with `$` is refused by name.

/// How deep defaults may nest.
const NESTING_MAX: usize = 8;

/// What a value refers to and cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InterpolationError {
    #[error("{0} depends on the machine's environment: write ${{{1}:-default}}, or the value itself")]
    NoDefault(String, String),
    #[error("{0}: only defaults are supported, as in ${{{1}:-default}}")]
    Operator(String, String),
    #[error("a \"$\" that begins no variable: write \"$$\" for a dollar sign")]
    Malformed,
    #[error("defaults nested deeper than {NESTING_MAX}")]
    TooDeep,
}

/// The text with its variables replaced by their defaults.
pub(crate) fn defaults(text: &str) -> Result<String, InterpolationError> {
    level(text, 0)
}

fn level(text: &str, depth: usize) -> Result<String, InterpolationError> {
    if depth > NESTING_MAX {
        return Err(InterpolationError::TooDeep);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('{') {
            let end = closing_brace(tail).ok_or(InterpolationError::Malformed)?;
            out.push_str(&braced(&tail[..end], depth)?);
            rest = &tail[end + 1..];
        } else {
            let name = &after[..name_len(after)];
            if name.is_empty() {
                return Err(InterpolationError::Malformed);
            }
            return Err(InterpolationError::NoDefault(format!("${name}"), name.to_owned()));
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn braced(inside: &str, depth: usize) -> Result<String, InterpolationError> {
    let (name, operator) = inside.split_at(name_len(inside));
    if name.is_empty() {
        return Err(InterpolationError::Malformed);
    }
    let default = operator.strip_prefix(":-").or_else(|| operator.strip_prefix('-'));
    match default {
        Some(default) => level(default, depth + 1),
        None if operator.is_empty() => {
            Err(InterpolationError::NoDefault(format!("${{{name}}}"), name.to_owned()))
        }
        None => {
            let shown: String = inside.escape_debug().take(40).collect();
            Err(InterpolationError::Operator(format!("${{{shown}}}"), name.to_owned()))
        }
    }
}

fn name_len(text: &str) -> usize {
    let first_is_digit = text.starts_with(|c: char| c.is_ascii_digit());
    if first_is_digit {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// The index of the brace that closes the one before the text.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_taken_whatever_the_environment_says() {
        let cases = [
            ("plain", "plain"),
            ("mysql:${TAG:-9}", "mysql:9"),
            ("${HOME-x}/${A:-}", "x/"),
            ("cost: $$5", "cost: $5"),
            ("${A:-${B:-${C-c}}}!", "c!"),
            ("${PATH:-{a}}", "{a}"),
        ];
        for (text, expected) in cases {
            assert_eq!(defaults(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_variable_without_a_default_is_refused_by_name() {
        for text in ["$HOME", "a ${HOME} b", "${A:-$HOME}"] {
            let error = defaults(text).expect_err(text);
            assert!(error.to_string().contains("${HOME:-default}"), "{error}");
        }
        assert!(matches!(defaults("${A:?must}"), Err(InterpolationError::Operator(..))));
        assert!(matches!(defaults("${A:+x}"), Err(InterpolationError::Operator(..))));
    }

    #[test]
    fn a_lone_dollar_is_refused() {
        for text in ["$", "${", "${}", "5$", "${1:-x}", "$1", "${A:-"] {
            assert_eq!(defaults(text), Err(InterpolationError::Malformed), "{text}");
        }
        let deep = "${A:-".repeat(20) + &"}".repeat(20);
        assert_eq!(defaults(&deep), Err(InterpolationError::TooDeep));
    }
}
