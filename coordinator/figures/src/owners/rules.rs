//! Rules and the sets of globs that find them: all that match a path, in the order of the file, in one pass over each set.

use globset::{Glob, GlobSet};

use super::Rule;

/// So many globs a set, so that none grows larger than its compiler allows.
const SET: usize = 256;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    sets: Vec<Set>,
}

/// Globs compiled together.
#[derive(Debug, Clone)]
struct Set {
    globs: GlobSet,
    /// Which rule each glob is of.
    rules: Vec<usize>,
}

impl Rules {
    /// Compiles all globs; `globs` says of each which rule it is of. The rules whose globs cannot be compiled, by themselves or together,
    /// match nothing, and are handed back with the reason.
    pub(super) fn new(rules: Vec<Rule>, globs: &[(usize, Glob)]) -> (Self, Vec<(usize, String)>) {
        let (mut sets, mut refused) = (Vec::new(), Vec::new());
        let mut waiting: Vec<&[(usize, Glob)]> = globs.chunks(SET).rev().collect();
        while let Some(chunk) = waiting.pop() {
            match GlobSet::new(chunk.iter().map(|(_, glob)| glob)) {
                Ok(globs) => sets.push(Set { globs, rules: chunk.iter().map(|(rule, _)| *rule).collect() }),
                Err(error) if chunk.len() <= 1 => {
                    refused.extend(chunk.iter().map(|(rule, _)| (*rule, error.kind().to_string())));
                }
                Err(_) => {
                    let (first, second) = chunk.split_at(chunk.len() / 2);
                    waiting.extend([second, first]);
                }
            }
        }
        (Self { rules, sets }, refused)
    }

    /// The rules that match a path, as they stand in the file.
    pub(super) fn matching(&self, path: &str) -> impl Iterator<Item = &Rule> {
        // Sets are in the order of their rules, and so are the globs of a set.
        let of_set = move |set: &'_ Set| {
            set.globs.matches(path).into_iter().map(|glob| set.rules[glob]).collect::<Vec<_>>()
        };
        let places: Vec<usize> = self.sets.iter().flat_map(of_set).collect();
        places.into_iter().map(|place| &self.rules[place])
    }
}
