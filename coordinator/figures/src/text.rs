//! Text from outside, made harmless for whoever reads it: on a terminal, on a page.
//!
//! Test names, failure messages, branch names and logs are written by whoever can push. Shown raw they could move
//! the cursor, set the window's title or clipboard (OSC), hide or reorder what a person reads (bidirectional
//! controls, zero-width characters). Invariant: what these functions return holds no control character but the
//! ones they name, and no character that changes the direction or visibility of others.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest line that is shown of a message; the whole is in the log and in `--json`.
pub const LINE_CHARS_MAX: usize = 300;

/// One line: every control character, line breaks and tabs included, becomes a visible escape.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Several lines: line feeds and tabs stay, a carriage return before a line feed goes, all else is escaped.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    if text.contains("\r\n") {
        return Cow::Owned(escape(&text.replace("\r\n", "\n"), |c| matches!(c, '\n' | '\t')).into_owned());
    }
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// One line, cut to `chars_max` characters with an ellipsis.
#[must_use]
pub fn cut(text: &str, chars_max: usize) -> String {
    let line = one_line(text);
    if line.chars().count() <= chars_max {
        return line.into_owned();
    }
    let mut short: String = line.chars().take(chars_max.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The first lines of a failure message that say something, each harmless and cut.
#[must_use]
pub fn head(message: &str, lines_max: usize) -> Vec<String> {
    message
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .take(lines_max)
        .map(|line| cut(line, LINE_CHARS_MAX))
        .collect()
}

/// Without the sequences that set colours and weights (`ESC [ … m`): they are in most logs and say nothing that is lost. Whatever else
/// begins with an escape stays, to be shown as what it is.
#[must_use]
pub fn without_colours(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = "\x1b[";
    if !text.contains(BEGIN) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let (before, sequence) = rest.split_at(at);
        plain.push_str(before);
        let numbers = &sequence[BEGIN.len()..];
        let end = numbers.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'));
        match end.filter(|end| numbers[*end..].starts_with('m')) {
            Some(end) => rest = &numbers[end + 1..],
            None => {
                plain.push_str(BEGIN);
                rest = numbers;
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// A word of a command as it is pasted into a shell: quoted where the shell would read it otherwise.
/// # Panics
/// Never: a string takes every write.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.chars().any(is_unsafe) {
        // ANSI-C quoting, so that the pasted word is the same bytes and the shown one harmless.
        let mut quoted = String::from("$'");
        for c in word.chars() {
            match c {
                '\\' | '\'' => quoted.extend(['\\', c]),
                c if is_unsafe(c) && c.is_ascii() => {
                    write!(quoted, "\\x{:02x}", u32::from(c)).expect("a string takes every write");
                }
                c if is_unsafe(c) => {
                    write!(quoted, "\\U{:08x}", u32::from(c)).expect("a string takes every write");
                }
                c => quoted.push(c),
            }
        }
        quoted.push('\'');
        return quoted;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && !keep(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if !is_unsafe(c) || keep(c) {
            safe.push(c);
            continue;
        }
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if c.is_ascii() => {
                write!(safe, "\\x{:02x}", u32::from(c)).expect("a string takes every write");
            }
            c => write!(safe, "\\u{{{:x}}}", u32::from(c)).expect("a string takes every write"),
        }
    }
    Cow::Owned(safe)
}

/// Controls (C0, DEL, C1), line and paragraph separators, direction and zero-width characters, tags, noncharacters.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{fffe}'..='\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_borrowed_unchanged() {
        for text in ["tests/test_a.py::test_x[1-ü]", "naïve 日本語 🙂", ""] {
            assert!(matches!(one_line(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn ansi_and_osc_sequences_are_shown_not_obeyed() {
        assert_eq!(one_line("a\x1b[2Jb"), "a\\x1b[2Jb");
        assert_eq!(one_line("\x1b]0;title\x07"), "\\x1b]0;title\\x07");
        assert_eq!(one_line("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(one_line("\x1b]52;c;ZXZpbA==\x1b\\"), "\\x1b]52;c;ZXZpbA==\\x1b\\");
        assert_eq!(one_line("\x7f"), "\\x7f");
    }

    #[test]
    fn colours_go_and_what_moves_a_cursor_stays_visible() {
        assert_eq!(without_colours("\x1b[1;31mred\x1b[0m \x1b[m."), "red .");
        assert_eq!(without_colours("a\x1b[2Jb\x1b[31"), "a\x1b[2Jb\x1b[31");
        assert!(matches!(without_colours("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn direction_and_zero_width_characters_are_shown() {
        assert_eq!(one_line("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(one_line("a\u{2066}b\u{2069}"), "a\\u{2066}b\\u{2069}");
        assert_eq!(one_line("a\u{200b}b\u{feff}"), "a\\u{200b}b\\u{feff}");
        assert_eq!(one_line("\u{e0041}"), "\\u{e0041}");
    }

    #[test]
    fn a_name_stays_on_one_line_and_a_log_keeps_its_lines() {
        assert_eq!(one_line("a\nb\tc\rd"), "a\\nb\\tc\\rd");
        assert_eq!(lines("a\r\nb\tc\rd\n"), "a\nb\tc\\rd\n");
        assert_eq!(lines("a\u{2028}b"), "a\\u{2028}b");
    }

    #[test]
    fn a_long_line_is_cut_with_an_ellipsis() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }

    #[test]
    fn head_takes_the_first_lines_that_say_something() {
        assert_eq!(head("\n\nE  assert 1 == 2\n\nmore\nlast", 2), ["E  assert 1 == 2", "more"]);
    }

    #[test]
    fn a_shell_word_is_pasted_back_as_it_was() {
        assert_eq!(shell_word("tests/a.py::T::x"), "tests/a.py::T::x");
        assert_eq!(shell_word("a b[$x]"), "'a b[$x]'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word("a\x1bb'"), r"$'a\x1bb\''");
        assert_eq!(shell_word("a\u{202e}"), r"$'a\U0000202e'");
        assert_eq!(shell_word(""), "''");
    }
}
