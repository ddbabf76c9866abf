//! Rules and the globs that find them: all that match a path, in the order of the file.
//!
//! A glob is matched part by part between slashes, and `**` as any number of parts, by going back to the last star alone: no pattern takes more
//! than the product of its length and the path's. `globset` was tried and is not fit for files that are not trusted: compiled together, the rules
//! of a file within its bounds took gigabytes.

use super::Rule;
use super::pattern::{Glob, Part};

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// Which rule each is of, in order.
    globs: Vec<(usize, Glob)>,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>, globs: Vec<(usize, Glob)>) -> Self {
        Self { rules, globs }
    }

    /// The rules that match a path, as they stand in the file.
    pub(super) fn matching(&self, path: &str) -> impl Iterator<Item = &Rule> {
        let parts: Vec<Vec<char>> = path.split('/').map(|part| part.chars().collect()).collect();
        let found = self.globs.iter().filter(move |(_, glob)| is_match(&glob.parts, &parts));
        found.map(|(rule, _)| &self.rules[*rule])
    }
}

/// The way of matching with one kind of star: where something does not fit, the last star takes one more.
fn with_stars<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut place, mut star) = (0, 0, None);
    while place < text.len() {
        if pattern.get(at).is_some_and(&is_star) {
            star = Some((at, place));
            at += 1;
        } else if pattern.get(at).is_some_and(|piece| fits(piece, &text[place])) {
            (at, place) = (at + 1, place + 1);
        } else if let Some((of_star, taken)) = star {
            star = Some((of_star, taken + 1));
            (at, place) = (of_star + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(is_star)
}

fn is_match(parts: &[Vec<Part>], path: &[Vec<char>]) -> bool {
    let any_parts = |part: &Vec<Part>| part.as_slice() == [Part::Parts];
    with_stars(parts, path, any_parts, |part, name| {
        with_stars(part, name, |piece| *piece == Part::Star, |piece, c| piece.fits(*c))
    })
}
