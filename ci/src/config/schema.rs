//! The JSON schema of `andon.toml`, for editors: what they complete, explain and underline while somebody writes the file.
//!
//! Written by hand in `docs/`, and held against the parser by this module's tests: the same keys in the same tables, the same
//! words, the same bounds. It may accept what only the parser can see to be wrong (places in commands, names given twice);
//! it refuses nothing that the parser takes.

/// The schema, JSON Schema draft 7: the draft that TOML editors know.
pub const SCHEMA: &str = include_str!("../../../docs/andon.schema.json");
/// The name of the schema beside an [`andon.toml`](super::FILE_NAME).
pub const SCHEMA_NAME: &str = "andon.schema.json";

/// The first line of an `andon.toml` beside which the schema lies, as TOML editors (Taplo and those built on it) read it.
#[must_use]
pub fn editors_line() -> String {
    format!("#:schema ./{SCHEMA_NAME}\n")
}

#[cfg(test)]
mod tests;
