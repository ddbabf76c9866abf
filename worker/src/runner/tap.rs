//! Reads a stream of the Test Anything Protocol, versions 12 to 14, as it comes.
//!
//! Pure. Points at the left margin count; what is indented (subtests, YAML blocks) is detail of the point that follows or
//! precedes it, as the versions have it. Whatever is no TAP is detail, too. Bounded: details are kept head and tail, points up to a limit.

use super::preset::LineCutter;
use crate::engine::HeadTail;

/// Kept of what belongs to one point.
const DETAIL_BYTES_MAX: usize = 64 * 1024;

/// What a line at the margin amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A subtest of this name begins: its point follows.
    Begins(String),
    /// A point, with all that belongs to it.
    Point(Point),
    /// The stream gives up.
    BailOut(String),
}

/// A test point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    /// `ok`.
    pub ok: bool,
    /// Without its number and directive.
    pub description: String,
    /// What follows `#`.
    pub directive: Directive,
    /// Diagnostics, subtests, YAML.
    pub detail: String,
}

/// What a point says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Directive {
    /// Nothing.
    None,
    /// It did not run.
    Skip(String),
    /// It is expected to fail.
    Todo(String),
}

/// The reader.
#[derive(Debug)]
pub(crate) struct Tap {
    lines: LineCutter,
    /// The last point: what comes up to the next is its own.
    held: Option<Point>,
    detail: HeadTail,
    /// `1..N`.
    pub(crate) plan: Option<u64>,
    /// Why the plan is none.
    pub(crate) skip_all: Option<String>,
    /// Points so far.
    pub(crate) points: u64,
}

impl Default for Tap {
    fn default() -> Self {
        Self {
            lines: LineCutter::default(),
            held: None,
            detail: HeadTail::with_limit(DETAIL_BYTES_MAX),
            plan: None,
            skip_all: None,
            points: 0,
        }
    }
}

impl Tap {
    /// Takes a chunk.
    pub(crate) fn hear(&mut self, bytes: &[u8], said: &mut Vec<Said>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.push(bytes, |line| self.line(&String::from_utf8_lossy(line), said));
        self.lines = lines;
    }

    /// The stream is over.
    pub(crate) fn end(&mut self, said: &mut Vec<Said>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.rest(|line| self.line(&String::from_utf8_lossy(line), said));
        said.extend(self.release());
    }

    fn release(&mut self) -> Option<Said> {
        let point = self.held.take()?;
        let detail = std::mem::replace(&mut self.detail, HeadTail::with_limit(DETAIL_BYTES_MAX));
        Some(Said::Point(Point { detail: format!("{}{}", point.detail, detail.to_text()), ..point }))
    }

    fn line(&mut self, line: &str, said: &mut Vec<Said>) {
        if let Some(mut point) = point(line) {
            // Subtests stand before their point: detail that is indented by four and came after a point's own.
            let (own, next) = split_subtest(&self.detail.to_text());
            self.detail = HeadTail::with_limit(DETAIL_BYTES_MAX);
            self.detail.push(own.as_bytes());
            if self.held.is_none() {
                point.detail = format!("{own}{next}");
                self.detail = HeadTail::with_limit(DETAIL_BYTES_MAX);
            } else {
                point.detail = next;
                said.extend(self.release());
            }
            self.points += 1;
            self.held = Some(point);
        } else if let Some((count, reason)) = plan(line) {
            self.plan = Some(count);
            self.skip_all = (count == 0).then(|| reason.unwrap_or_default());
        } else if let Some(reason) = line.strip_prefix("Bail out!") {
            said.extend(self.release());
            said.push(Said::BailOut(reason.trim().to_owned()));
        } else if !line.starts_with("TAP version ") && !line.starts_with("pragma ") {
            if let Some(name) = line.strip_prefix("# Subtest: ") {
                said.push(Said::Begins(unescaped(name)));
            }
            self.detail.push(line.as_bytes());
            self.detail.push(b"\n");
        }
    }
}

/// What belongs to the point before, and what is the subtest of the point that comes.
fn split_subtest(detail: &str) -> (String, String) {
    let at = match detail.strip_prefix("# Subtest: ") {
        Some(_) => Some(0),
        None => detail.find("\n# Subtest: ").map(|at| at + 1),
    };
    // Before version 14 nothing announces a subtest: lines of TAP, indented.
    let indented = || {
        let mut from = 0;
        for line in detail.split_inclusive('\n') {
            let inner = line.strip_prefix("    ").unwrap_or("");
            if point(inner.trim_end()).is_some()
                || plan(inner.trim_end()).is_some()
                || inner.starts_with("# Subtest: ")
            {
                return Some(from);
            }
            from += line.len();
        }
        None
    };
    match at.or_else(indented) {
        Some(at) => (detail[..at].to_owned(), detail[at..].to_owned()),
        None => (detail.to_owned(), String::new()),
    }
}

fn point(line: &str) -> Option<Point> {
    let (ok, rest) = match line.strip_prefix("ok") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix("not ok")?),
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let numbered = digits > 0 && (rest.len() == digits || rest[digits..].starts_with([' ', '-', '#']));
    let rest = if numbered { rest[digits..].trim_start() } else { rest };
    let (text, directive) = directive(rest);
    let text = text.strip_prefix('-').map_or(text, str::trim_start).trim_end();
    Some(Point { ok, description: unescaped(text), directive, detail: String::new() })
}

/// The text before a directive, and the directive. A `#` with a backslash before it begins none.
fn directive(text: &str) -> (&str, Directive) {
    for (at, _) in text.match_indices('#') {
        let backslashes = text[..at].len() - text[..at].trim_end_matches('\\').len();
        let after = text[at + 1..].trim_start();
        let word = after.get(..4).unwrap_or("").to_ascii_lowercase();
        if backslashes % 2 == 1 || !matches!(word.as_str(), "skip" | "todo") {
            continue;
        }
        // `# SKIPPED: why` is usual, too.
        let reason = after.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let reason = reason.trim_start_matches([':', ' ']).trim_end().to_owned();
        let directive = if word == "skip" { Directive::Skip(reason) } else { Directive::Todo(reason) };
        return (&text[..at], directive);
    }
    (text, Directive::None)
}

fn unescaped(text: &str) -> String {
    text.replace("\\#", "#").replace("\\\\", "\\")
}

/// `1..N`, and `1..0 # SKIP why`.
fn plan(line: &str) -> Option<(u64, Option<String>)> {
    let rest = line.strip_prefix("1..")?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let count = rest[..digits].parse().ok()?;
    let reason = match directive(rest[digits..].trim()).1 {
        Directive::Skip(reason) => Some(reason),
        _ => None,
    };
    Some((count, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Vec<Said>, Tap) {
        let (mut tap, mut said) = (Tap::default(), Vec::new());
        text.as_bytes().chunks(3).for_each(|chunk| tap.hear(chunk, &mut said));
        tap.end(&mut said);
        (said, tap)
    }

    fn points(text: &str) -> Vec<Point> {
        let point = |said| match said {
            Said::Point(point) => Some(point),
            _ => None,
        };
        read(text).0.into_iter().filter_map(point).collect()
    }

    #[test]
    fn every_spelling_of_a_point_is_one() {
        let found = points(
            "ok\nok 1\nnot ok 2 bare\nok 3 - dash\nok named\nokay no point\nnot ok 4 - a \\# b # TODO later\nok 5 # skip why\n",
        );
        let said: Vec<(bool, &str)> =
            found.iter().map(|point| (point.ok, point.description.as_str())).collect();
        let expected = [
            (true, ""),
            (true, ""),
            (false, "bare"),
            (true, "dash"),
            (true, "named"),
            (false, "a # b"),
            (true, ""),
        ];
        assert_eq!(said, expected);
        assert_eq!(found[5].directive, Directive::Todo("later".into()));
        assert_eq!(found[6].directive, Directive::Skip("why".into()));
    }

    #[test]
    fn diagnostics_and_yaml_are_of_the_point_before_them() {
        let found =
            points("TAP version 14\n1..2\nnot ok 1 - a\n  ---\n  message: bad\n  ...\n# more\nok 2 - b\n");
        assert_eq!(found[0].detail, "  ---\n  message: bad\n  ...\n# more\n");
        assert_eq!(found[1].detail, "");
    }

    #[test]
    fn subtests_are_of_the_point_after_them() {
        for head in ["# Subtest: outer\n", ""] {
            let text = format!(
                "ok 1 - first\n# of the first\n{head}    ok 1 - inner\n    not ok 2 - bad\n    1..2\nnot ok 2 - outer\n1..2\n"
            );
            let found = points(&text);
            assert_eq!(found.len(), 2, "{found:?}");
            assert_eq!(found[0].detail, "# of the first\n");
            assert!(found[1].detail.contains("not ok 2 - bad"), "{found:?}");
        }
    }

    #[test]
    fn plans_and_their_absence_and_a_bail_out_are_seen() {
        assert_eq!(read("1..3\nok\n").1.plan, Some(3));
        assert_eq!(read("1..0 # SKIP no database\n").1.skip_all.as_deref(), Some("no database"));
        assert_eq!(read("Bail out!  no disk\n").0, [Said::BailOut("no disk".into())]);
    }

    proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(text in "(ok|not ok| |#|\\\\|1\\.\\.|é|TODO|SKIP|\n|    |-|[0-9]){0,60}") {
            read(&text);
        }
    }
}
