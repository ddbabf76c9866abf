//! `.dockerignore`: which files of a context are sent to a build. (Docker's reference, ".dockerignore file".)
//!
//! A line is a pattern over whole paths: `*` and `?` stop at slashes, `**` does not, `[a-z]` and `\` as usual. A pattern
//! that matches a folder takes everything in it. A line that begins with `!` brings files back; the last match counts.

/// Longest file that is read, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Most lines that are used.
const RULES_MAX: usize = 2_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    One(char),
    AnyOne,
    AnyInFolder,
    /// Also over slashes.
    Anything,
    /// `**/` is nothing, or anything that ends in a slash: this decides, and `Folders` behind it is the second.
    MaybeFolders,
    Folders,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

#[derive(Debug, Clone)]
struct Rule {
    parts: Vec<Part>,
    brings_back: bool,
}

/// The rules of one file, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
}

impl Ignore {
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.trim_start_matches('\u{feff}').lines();
        let lines =
            lines.filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
        Self { rules: lines.take(RULES_MAX).filter_map(rule).collect() }
    }

    /// Whether a file is left out. Paths are relative, with single slashes.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let mut left_out = false;
        for rule in &self.rules {
            // Only a match that would change something needs to be looked for.
            if rule.brings_back == left_out && prefixes(path).any(|prefix| matches(&rule.parts, prefix)) {
                left_out = !rule.brings_back;
            }
        }
        left_out
    }

    /// Whether a folder that is left out may hold files that are not.
    pub(super) fn brings_some_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.brings_back)
    }
}

/// The path itself and every folder above it.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
    folders.chain(std::iter::once(path))
}

fn rule(line: &str) -> Option<Rule> {
    let (brings_back, pattern) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    // `./a//b/../c/` is `a/c`.
    let mut names: Vec<&str> = Vec::new();
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let pattern = names.join("/");
    // The whole context cannot be left out.
    (!pattern.is_empty()).then(|| Rule { parts: parts(&pattern), brings_back })
}

fn parts(pattern: &str) -> Vec<Part> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut parts = Vec::new();
    let mut rest = chars.as_slice();
    while let [first, after @ ..] = rest {
        let (part, after) = match (first, after) {
            ('*', ['*', '/', after @ ..]) => {
                parts.push(Part::MaybeFolders);
                (Part::Folders, after)
            }
            ('*', ['*', after @ ..]) => (Part::Anything, after),
            ('*', after) => (Part::AnyInFolder, after),
            ('?', after) => (Part::AnyOne, after),
            ('\\', [escaped, after @ ..]) => (Part::One(*escaped), after),
            ('[', after) => class(after).unwrap_or((Part::One('['), after)),
            (other, after) => (Part::One(*other), after),
        };
        parts.push(part);
        rest = after;
    }
    parts
}

/// `a-z]…` and `^a]…`, after the opening bracket. `None` where it is not closed or empty.
fn class(text: &[char]) -> Option<(Part, &[char])> {
    let (negated, mut rest) = match text {
        ['^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut ranges = Vec::new();
    loop {
        rest = match rest {
            [']', after @ ..] if !ranges.is_empty() => return Some((Part::Class { negated, ranges }, after)),
            [low, '-', high, after @ ..] if *high != ']' => {
                ranges.push((*low, *high));
                after
            }
            [one, after @ ..] => {
                ranges.push((*one, *one));
                after
            }
            [] => return None,
        };
    }
}

/// Step by step over the path, with the set of places in the pattern that are possible so far: no pattern takes more than
/// (its length) × (the path's length) steps.
fn matches(parts: &[Part], path: &str) -> bool {
    let mut places = vec![false; parts.len() + 1];
    places[0] = true;
    step_over(parts, &mut places);
    for c in path.chars() {
        let mut next = vec![false; parts.len() + 1];
        for (at, part) in parts.iter().enumerate().filter(|(at, _)| places[*at]) {
            match part {
                Part::One(wanted) => next[at + 1] |= c == *wanted,
                Part::AnyOne => next[at + 1] |= c != '/',
                Part::AnyInFolder => next[at] |= c != '/',
                Part::Anything => next[at] = true,
                Part::MaybeFolders => {}
                Part::Folders => {
                    next[at] = true;
                    next[at + 1] |= c == '/';
                }
                Part::Class { negated, ranges } => {
                    let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                    next[at + 1] |= c != '/' && inside != *negated;
                }
            }
        }
        step_over(parts, &mut next);
        places = next;
    }
    places[parts.len()]
}

/// Places that are reached without taking a character.
fn step_over(parts: &[Part], places: &mut [bool]) {
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::AnyInFolder | Part::Anything => places[at + 1] |= places[at],
            Part::MaybeFolders => {
                places[at + 1] |= places[at];
                places[at + 2] |= places[at];
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(pattern: &str, path: &str) -> bool {
        Ignore::parse(pattern).leaves_out(path)
    }

    #[test]
    fn a_star_stops_at_a_slash_and_two_stars_do_not() {
        assert!(one("*.md", "README.md") && !one("*.md", "docs/README.md"));
        assert!(one("**/*.md", "README.md") && one("**/*.md", "docs/a/README.md"));
        assert!(one("docs/**/x", "docs/x") && one("docs/**/x", "docs/a/b/x") && !one("docs/**/x", "docsx"));
        assert!(one("docs/**", "docs/a/b") && !one("docs/**", "doc"));
        assert!(one("a**z", "a/b/z") && one("a**z", "az"));
    }

    #[test]
    fn question_marks_classes_and_escapes_work() {
        assert!(one("a?c", "abc") && !one("a?c", "a/c") && !one("a?c", "ac"));
        assert!(one("[a-c]x", "bx") && !one("[a-c]x", "dx") && one("[^a-c]x", "dx"));
        assert!(one("\\*", "*") && !one("\\*", "a"));
        assert!(one("[", "[") && one("[]", "[]"), "a bracket that is not closed is itself");
    }

    #[test]
    fn a_folder_that_matches_takes_what_is_in_it() {
        assert!(one("target", "target/debug/x") && !one("target", "a/target"));
        assert!(one("/target/", "target/x") && one("./target", "target"));
    }

    #[test]
    fn the_last_match_counts() {
        let ignore = Ignore::parse("# all but the readmes\n*.md\n!README*.md\nREADME-secret.md\n");
        assert!(ignore.leaves_out("a.md"));
        assert!(!ignore.leaves_out("README-x.md"));
        assert!(ignore.leaves_out("README-secret.md"));
        let ignore = Ignore::parse("*\n!src\n");
        assert!(ignore.leaves_out("x") && !ignore.leaves_out("src/a/b"));
    }

    #[test]
    fn an_empty_file_leaves_nothing_out() {
        assert!(!one("", "a") && !one("\n\n# x\n/\n.\n", "a"));
    }

    /// The plain definition, slow: what the stepping matcher must agree with.
    fn matches_slowly(parts: &[Part], path: &[char]) -> bool {
        let Some((part, rest)) = parts.split_first() else { return path.is_empty() };
        let then = |count: usize| matches_slowly(rest, &path[count..]);
        let slashes = || path.iter().enumerate().filter(|(_, c)| **c == '/').map(|(at, _)| at);
        match (part, path.first()) {
            (Part::AnyInFolder, _) => (0..=slashes().next().unwrap_or(path.len())).any(then),
            (Part::Anything, _) => (0..=path.len()).any(then),
            (Part::MaybeFolders, _) => matches_slowly(&rest[1..], path) || then(0),
            (Part::Folders, _) => slashes().any(|at| then(at + 1)),
            (Part::One(wanted), Some(c)) => c == wanted && then(1),
            (Part::AnyOne, Some(c)) => *c != '/' && then(1),
            (Part::Class { negated, ranges }, Some(c)) => {
                *c != '/'
                    && ranges.iter().any(|(low, high)| (*low..=*high).contains(c)) != *negated
                    && then(1)
            }
            (_, None) => false,
        }
    }

    proptest! {
        #[test]
        fn stepping_agrees_with_the_plain_definition(pattern in "[ab/*?]{0,8}", path in "[ab]{1,2}(/[ab]{1,2}){0,3}") {
            let parts = super::parts(&pattern);
            let chars: Vec<char> = path.chars().collect();
            prop_assert_eq!(matches(&parts, &path), matches_slowly(&parts, &chars));
        }
    }
}
