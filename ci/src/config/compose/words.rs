//! A command line as a shell would cut it into words: quotes and backslashes, nothing else of the shell.

/// Why a command line cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordsError {
    #[error("has a quote that does not end")]
    OpenQuote,
    #[error("ends in a backslash")]
    OpenEscape,
}

/// Cuts a line into words.
pub(crate) fn split(line: &str) -> Result<Vec<String>, WordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => single_quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next().ok_or(WordsError::OpenEscape)? {
                '\n' => {}
                escaped => word.get_or_insert_default().push(escaped),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match chars.next().ok_or(WordsError::OpenQuote)? {
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), WordsError> {
    loop {
        match chars.next().ok_or(WordsError::OpenQuote)? {
            '"' => return Ok(()),
            '\\' => match chars.next().ok_or(WordsError::OpenQuote)? {
                '\n' => {}
                // Within double quotes a backslash escapes only these (POSIX shell, 2.2.3).
                c @ ('"' | '\\' | '$' | '`') => word.push(c),
                c => word.extend(['\\', c]),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_as_a_shell_cuts_them() {
        let cases: [(&str, &[&str]); 6] = [
            ("mysqld --port 3306", &["mysqld", "--port", "3306"]),
            ("  a\t b\n", &["a", "b"]),
            (r#"sh -c "echo \"$X\" \n""#, &["sh", "-c", r#"echo "$X" \n"#]),
            ("a'b c'd", &["ab cd"]),
            ("'' \"\"", &["", ""]),
            (r"a\ b", &["a b"]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
    }

    #[test]
    fn an_open_quote_or_escape_is_refused() {
        assert_eq!(split("a 'b"), Err(WordsError::OpenQuote));
        assert_eq!(split("a \"b\\"), Err(WordsError::OpenQuote));
        assert_eq!(split("a\\"), Err(WordsError::OpenEscape));
    }
}
