//! Where the command writes: stdout for what was asked for, stderr for everything beside it.
//!
//! `println!` panics when the reader is gone; these functions say so instead, and `CliError` turns that into a
//! quiet end.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::report::summary::Paint;

/// Writes to stdout.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a line to stdout.
pub(crate) fn line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes bytes to stdout as they are.
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Writes a value as JSON and a line feed.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    line(&text)
}

/// A line beside the output; where nobody reads stderr there is nothing to be done.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Bytes beside the output, as they are.
pub(crate) fn raw_note(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
}

/// Whether stdout is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Colours for stdout: on a terminal, unless `NO_COLOR` is set.
pub(crate) fn paint() -> Paint {
    if is_terminal() && wants_colour() { Paint::Colour } else { Paint::Plain }
}

/// Colours for stderr.
pub(crate) fn stderr_colour() -> bool {
    io::stderr().is_terminal() && wants_colour()
}

/// Whether the person wants colours where they can be.
pub(crate) fn wants_colour() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !dumb && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
