//! What templates write, made harmless: markup is escaped, and so is every character that would hide or reorder what a
//! person reads. It is the escaper of all templates (askama.toml), so that nothing can be shown without it.

use std::fmt::{self, Write};

use andon_figures::text;
use askama::filters::{Escaper, Html};

/// The escaper of the pages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Inert;

impl Escaper for Inert {
    fn write_escaped_str<W: Write>(&self, dest: W, string: &str) -> fmt::Result {
        Html.write_escaped_str(dest, &text::one_line(string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut shown = String::new();
        Inert.write_escaped_str(&mut shown, text).expect("a string takes every write");
        shown
    }

    #[test]
    fn markup_controls_and_directions_are_shown_not_obeyed() {
        assert_eq!(shown("plain ü 日本"), "plain ü 日本");
        assert!(!shown("<script>\"'&").contains(['<', '>', '"', '\'']));
        assert_eq!(shown("a\x1b[31mb\u{202e}c\u{200b}"), "a\\x1b[31mb\\u{202e}c\\u{200b}");
    }
}
