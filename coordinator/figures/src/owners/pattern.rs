//! A pattern of CODEOWNERS as globs.
//!
//! | pattern | GitHub's globs | GitLab's |
//! | --- | --- | --- |
//! | `*` | `**/*` | `**/*` |
//! | `*.js` | `**/*.js`, `**/*.js/**` | `**/*.js` |
//! | `a/b` | `a/b`, `a/b/**` | `**/a/b` |
//! | `/a/` | `a/**` | `a/**/*` |
//! | `a/` | `**/a/**` | `**/a/**/*` |
//! | `a/*` | `a/*` | `**/a/*` |
//! | `**/a` | `**/a`, `**/a/**` | `**/a` |
//!
//! `**` between slashes is any number of folders, at the end at least a name; `*` and `?` stop at slashes. Braces mean themselves.

use super::{Dialect, Reason, WORD_MAX};

/// A piece of a name in a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// `**`, alone: any number of names.
    Parts,
    /// `*`
    Star,
    /// `?`
    One,
    /// This one.
    Is(char),
    /// `[a-z]`, or with `!` or `^` all others.
    Among { ranges: Vec<(char, char)>, is_negated: bool },
}

impl Part {
    pub(super) fn fits(&self, c: char) -> bool {
        match self {
            Self::Parts | Self::Star => false,
            Self::One => true,
            Self::Is(wanted) => *wanted == c,
            Self::Among { ranges, is_negated } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *is_negated
            }
        }
    }
}

/// A pattern, between its slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    pub(super) parts: Vec<Vec<Part>>,
}

/// The globs of a pattern as it was written, escapes included.
pub(super) fn globs(written: &str, dialect: Dialect) -> Result<Vec<Glob>, Reason> {
    if written.len() > WORD_MAX {
        return Err(Reason::TooLong);
    }
    let glob = translated(written, dialect)?;
    let is_rooted = glob.starts_with('/');
    let is_folder = glob.ends_with('/');
    let body = glob.trim_start_matches('/').trim_end_matches('/');
    if body.is_empty() && (dialect == Dialect::GitHub || !is_folder) {
        return Err(Reason::Empty);
    }
    let globs = match dialect {
        Dialect::GitHub => github(body, is_rooted, is_folder),
        Dialect::GitLab => vec![gitlab(body, is_rooted, is_folder)],
    };
    globs.iter().map(|glob| built(glob)).collect()
}

fn github(body: &str, is_rooted: bool, is_folder: bool) -> Vec<String> {
    let anywhere = if is_rooted || body.contains('/') { "" } else { "**/" };
    let itself = format!("{anywhere}{body}");
    let within = format!("{itself}/**");
    let last = body.rsplit('/').next().unwrap_or_default();
    match last {
        _ if is_folder => vec![within],
        "*" | "**" => vec![itself],
        _ => vec![itself, within],
    }
}

fn gitlab(body: &str, is_rooted: bool, is_folder: bool) -> String {
    let anywhere = if is_rooted { "" } else { "**/" };
    match (body.is_empty(), is_folder) {
        (true, _) => "**/*".to_owned(),
        (false, true) => format!("{anywhere}{body}/**/*"),
        (false, false) => format!("{anywhere}{body}"),
    }
}

/// Reads a glob whose escapes are `\\` and a character.
fn built(glob: &str) -> Result<Glob, Reason> {
    let mut parts = vec![Vec::new()];
    let mut chars = glob.chars();
    while let Some(c) = chars.next() {
        let piece = match c {
            '/' => {
                parts.push(Vec::new());
                continue;
            }
            '*' => Part::Star,
            '?' => Part::One,
            '[' => among(&mut chars)?,
            '\\' => Part::Is(chars.next().ok_or(Reason::Escape)?),
            c => Part::Is(c),
        };
        parts.last_mut().expect("it began with one").push(piece);
    }
    for part in &mut parts {
        if *part == [Part::Star, Part::Star] {
            *part = vec![Part::Parts];
        }
    }
    // At the end there is a name: what lies in a folder, and not the folder.
    if parts.last().is_some_and(|last| *last == [Part::Parts]) {
        parts.push(vec![Part::Star]);
    }
    Ok(Glob { parts })
}

fn among(chars: &mut std::str::Chars<'_>) -> Result<Part, Reason> {
    let unclosed = || Reason::Pattern("a range is not closed".to_owned());
    let (mut ranges, mut is_negated, mut is_first) = (Vec::new(), false, true);
    loop {
        match chars.next().ok_or_else(unclosed)? {
            '!' | '^' if is_first && !is_negated => {
                is_negated = true;
                continue;
            }
            ']' if !is_first => return Ok(Part::Among { ranges, is_negated }),
            c => {
                let from = if c == '\\' { chars.next().ok_or_else(unclosed)? } else { c };
                let mut ahead = chars.clone();
                let to = match (ahead.next(), ahead.next()) {
                    (Some('-'), Some(to)) if to != ']' => {
                        *chars = ahead;
                        to
                    }
                    _ => from,
                };
                ranges.push((from, to));
            }
        }
        is_first = false;
    }
}

/// Checks what the dialect allows; escapes stay.
fn translated(written: &str, dialect: Dialect) -> Result<String, Reason> {
    let mut glob = String::with_capacity(written.len());
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => glob.extend(['\\', chars.next().ok_or(Reason::Escape)?]),
            '[' | ']' if dialect == Dialect::GitHub => return Err(Reason::Range),
            c => glob.push(c),
        }
    }
    Ok(glob)
}
