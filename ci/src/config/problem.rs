//! What is wrong in a project's files, and where: one line each, all of them at once.
//!
//! Text that comes from a repository is shown quoted, with control characters escaped (see [`quoted`]): a
//! configuration must not be able to write on somebody's terminal.

use std::fmt;

/// A place in one of the project's files. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Path from the root of the repository.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Place {
    /// The beginning of a file: for what is missing, or wrong about the file as a whole.
    pub fn start_of(file: &str) -> Self {
        Self { file: file.to_owned(), line: 1, column: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.file.escape_debug() {
            f.write_fmt(format_args!("{part}"))?;
        }
        write!(f, ":{}:{}", self.line, self.column)
    }
}

/// One mistake: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What is wrong, and the valid choices or the nearest known name.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All mistakes of a project's configuration, in the order of the files' lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// A single mistake.
    pub fn one(place: Place, message: impl Into<String>) -> Self {
        Self { problems: vec![Problem { place, message: message.into() }] }
    }
}

/// One line for each mistake.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something that a person should know and that does not keep the run from starting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Where, if it is about a line of a file.
    pub place: Option<Place>,
    /// What.
    pub message: String,
}

impl Note {
    /// A note about the source as a whole.
    pub fn about_source(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// A value and where it was written, for checks that come after parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub place: Place,
}

/// Collects problems and notes of one file; turns byte offsets into places.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
    /// Characters before each [`BLOCK`] of the text, and of all of it: a file may be one line, with a mistake in each word of it.
    blocks: Vec<usize>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) notes: Vec<Note>,
}

/// The most mistakes that are kept of one file; the rest are counted.
const PROBLEMS_MAX: usize = 100;
/// So many bytes are counted again for a place.
const BLOCK: usize = 256;

impl<'a> Findings<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(ends).collect();
        let counted = text.as_bytes().chunks(BLOCK).scan(0, |before, block| {
            *before += characters(block);
            Some(*before)
        });
        let blocks = std::iter::once(0).chain(counted).collect();
        Self { file, text, line_starts, blocks, problems: Vec::new(), notes: Vec::new() }
    }

    /// The place of a byte offset.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let column = self.characters_before(offset) - self.characters_before(start);
        self.at(line + 1, column + 1)
    }

    fn characters_before(&self, offset: usize) -> usize {
        let block = offset / BLOCK;
        let rest = self.text.as_bytes().get(block * BLOCK..offset).unwrap_or_default();
        self.blocks.get(block).copied().unwrap_or(0) + characters(rest)
    }

    /// A place by line and column, both from 1.
    pub(crate) fn at(&self, line: usize, column: usize) -> Place {
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { file: self.file.to_owned(), line: clamp(line), column: clamp(column) }
    }

    pub(crate) fn problem(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem { place, message: message.into() });
    }

    pub(crate) fn note(&mut self, place: Place, message: impl Into<String>) {
        self.notes.push(Note { place: Some(place), message: message.into() });
    }
}

/// Of text: bytes that begin one.
fn characters(text: &[u8]) -> usize {
    text.iter().filter(|byte| (**byte & 0xC0) != 0x80).count()
}

/// Sorted, each once, no more than [`PROBLEMS_MAX`]; `None` where there are none.
pub(crate) fn all_problems(mut problems: Vec<Problem>) -> Option<ConfigErrors> {
    problems.sort();
    problems.dedup();
    let dropped = problems.len().saturating_sub(PROBLEMS_MAX);
    if dropped > 0 {
        problems.truncate(PROBLEMS_MAX);
        let place = problems.last()?.place.clone();
        problems.push(Problem { place, message: format!("and {dropped} more mistakes") });
    }
    if problems.is_empty() { None } else { Some(ConfigErrors { problems }) }
}

/// Text from a repository, quoted and with control characters escaped, cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    if text.chars().count() <= SHOWN_MAX {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN_MAX).collect();
    format!("{head:?}…")
}

/// `"a", "b" or "c"`.
pub(crate) fn choices(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}

/// The known word that somebody most likely meant.
pub(crate) fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    const LIKENESS_MIN: f64 = 0.75;
    const WORD_MAX: usize = 64;
    if word.len() > WORD_MAX {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let scored = known.iter().map(|known| (strsim::jaro_winkler(&word, known), *known));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 >= LIKENESS_MIN).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_not_bytes() {
        let text = "a = \"ä\" b\nsecond\n";
        let findings = Findings::new("f", text);
        let offset = text.find('b').expect("in the text");
        assert_eq!(findings.place(offset).to_string(), "f:1:9");
        assert_eq!(findings.place(text.find("second").expect("in the text")).to_string(), "f:2:1");
        assert_eq!(findings.place(usize::MAX).to_string(), "f:3:1");
    }

    #[test]
    fn columns_of_long_lines_are_those_of_short_ones() {
        for blocks in [1, 2, 3] {
            let line = "aä€".repeat(BLOCK * blocks / 6);
            let text = format!("{line}\n{line}");
            let findings = Findings::new("f", &text);
            for (at, (offset, _)) in line.char_indices().enumerate() {
                assert_eq!(findings.place(offset), findings.at(1, at + 1));
                assert_eq!(findings.place(line.len() + 1 + offset), findings.at(2, at + 1));
            }
            assert_eq!(findings.place(text.len()), findings.at(2, line.chars().count() + 1));
        }
        assert_eq!(Findings::new("f", "").place(7).to_string(), "f:1:1");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let shown = Problem {
            place: Place { file: "a\u{1b}[2Jb".into(), line: 1, column: 2 },
            message: format!("unknown key {}", quoted("x\u{1b}]0;owned\u{7}")),
        }
        .to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }

    #[test]
    fn the_nearest_word_is_only_named_when_it_is_near() {
        assert_eq!(nearest("retires", &["retries", "rebase"]), Some("retries"));
        assert_eq!(nearest("time-out", &["timeout", "target"]), Some("timeout"));
        assert_eq!(nearest("zzz", &["retries", "rebase"]), None);
    }

    #[test]
    fn a_flood_of_mistakes_is_cut_and_counted() {
        let many = (0..500)
            .map(|line| Problem { place: Place { file: "f".into(), line, column: 1 }, message: "m".into() });
        let errors = all_problems(many.collect()).expect("there are problems");
        assert_eq!(errors.problems.len(), PROBLEMS_MAX + 1);
        assert!(errors.to_string().ends_with("and 400 more mistakes"));
    }
}
