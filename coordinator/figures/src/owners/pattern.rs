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
//! In `globset`, `*` and `?` stop at slashes as asked for, and braces mean something, which they do not here.

use globset::{Glob, GlobBuilder};

use super::{Dialect, Reason, WORD_MAX};

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

fn built(glob: &str) -> Result<Glob, Reason> {
    let mut builder = GlobBuilder::new(glob);
    let built = builder.literal_separator(true).backslash_escape(true).build();
    built.map_err(|error| Reason::Pattern(error.kind().to_string()))
}

/// With `globset`'s escapes in place of what was escaped, and before what means something to it alone.
fn translated(written: &str, dialect: Dialect) -> Result<String, Reason> {
    let mut glob = String::with_capacity(written.len() + 8);
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => literal(&mut glob, chars.next().ok_or(Reason::Escape)?),
            '[' | ']' if dialect == Dialect::GitHub => return Err(Reason::Range),
            '{' | '}' => literal(&mut glob, c),
            _ => glob.push(c),
        }
    }
    Ok(glob)
}

fn literal(glob: &mut String, c: char) {
    if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!' | ',') {
        glob.push('\\');
    }
    glob.push(c);
}
