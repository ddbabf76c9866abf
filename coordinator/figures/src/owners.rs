//! CODEOWNERS: who owns a file. One parser and matcher for GitHub's rules and for GitLab's, as their documentation has them:
//! <https://docs.github.com/en/repositories/managing-your-repositorys-settings-and-features/customizing-your-repository/about-code-owners> and
//! <https://docs.gitlab.com/user/project/codeowners/reference/>.
//!
//! | | GitHub | GitLab |
//! | --- | --- | --- |
//! | which rule | the last that matches | the last that matches, in each section |
//! | `a/b` | from the root | anywhere |
//! | `/a` | `a` and what is in it | `a` alone; `/a/` is what is in it |
//! | `a/*` | files of `a`, not deeper | the same |
//! | `!a` | a mistake | nobody of this section owns it, whatever comes later |
//! | `[ab]` in a pattern | a mistake | one of these |
//! | `\#a` | a mistake | a file `#a` |
//! | a word that names no owner | the line is skipped | the word is skipped |
//! | no owner | nobody owns it | the section's own, or nobody |
//! | `# …` after the owners | a comment | not one: owners named in it count |
//!
//! No pattern takes more time than the product of its length and the path's, and none more room than its text, whatever a repository writes. Each mistake is told with its line; the rest of the
//! file holds. It reads no file: text in, owners out. Gitea's and Forgejo's files, whose patterns are regular expressions, are none of
//! these two and are not read.

mod parse;
mod pattern;
mod rules;

use std::collections::BTreeSet;
use std::fmt;

use rules::Rules;

/// GitHub reads no larger file, in bytes.
pub const TEXT_MAX: usize = 3 * 1024 * 1024;

/// So many rules at most; later ones are mistakes.
pub const RULES_MAX: usize = 20_000;

/// So many owners of a rule or a section at most.
pub const OWNERS_MAX: usize = 100;

/// No pattern, section name or owner is longer, in bytes.
pub const WORD_MAX: usize = 1_024;

/// So many mistakes are kept; all are counted.
pub const MISTAKES_MAX: usize = 1_000;

/// No path is longer, in bytes: a longer one has no owner.
pub const PATH_MAX: usize = 4_096;

/// No test's file has a longer path, in bytes.
const FILE_MAX: usize = 1_024;

/// The file of a test, where its id names one: what stands before the first `::`, if that reads like a path beneath the repository's root
/// and like a file's. `tests/test_a.py::TestB::test_c` and `t/smoke.t` name one, `shop::till sells` does not.
#[must_use]
pub fn file_of(id: &str) -> Option<&str> {
    let path = id.split("::").next()?;
    let is_path = path.len() < FILE_MAX
        && path.contains('.')
        && !path.chars().any(|c| c.is_control() || c.is_whitespace())
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    is_path.then_some(path)
}

/// Whose rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// See the module's table.
    GitHub,
    /// See the module's table.
    GitLab,
}

/// Members of a GitLab project with exactly this role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `@@developer`
    Developer,
    /// `@@maintainer`
    Maintainer,
    /// `@@owner`
    Owner,
}

/// Who owns something. Whether there is such a one only the forge knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A user, or on GitLab a group: what follows the `@`.
    Name(String),
    /// A team of an organization, or on GitLab a subgroup: what follows the `@`, with its slashes.
    Team(String),
    /// Members with a role.
    Role(Role),
    /// An address.
    Email(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) | Self::Team(name) => write!(f, "@{name}"),
            Self::Role(Role::Developer) => f.write_str("@@developer"),
            Self::Role(Role::Maintainer) => f.write_str("@@maintainer"),
            Self::Role(Role::Owner) => f.write_str("@@owner"),
            Self::Email(address) => f.write_str(address),
        }
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// GitHub knows no negation.
    #[error("a pattern cannot be negated with `!`")]
    Negation,
    /// GitHub knows no ranges.
    #[error("a pattern cannot have a range in `[ ]`")]
    Range,
    /// GitHub takes no `\#`.
    #[error("a pattern cannot begin with an escaped `#`")]
    Pound,
    /// A `\` at the end.
    #[error("a pattern ends within an escape")]
    Escape,
    /// There is no pattern, or one that names nothing.
    #[error("there is no pattern")]
    Empty,
    /// A pattern that means nothing.
    #[error("the pattern has no meaning: {0}")]
    Pattern(String),
    /// Longer than [`WORD_MAX`].
    #[error("a pattern, a section's name or an owner is longer than {WORD_MAX} bytes")]
    TooLong,
    /// A word that names no owner.
    #[error("`{0}` is no owner: expected @user, @org/team or an address")]
    Owner(String),
    /// GitLab asks for an owner.
    #[error("the rule has no owner")]
    NoOwner,
    /// More than [`OWNERS_MAX`].
    #[error("more than {OWNERS_MAX} owners")]
    TooManyOwners,
    /// More than [`RULES_MAX`].
    #[error("more than {RULES_MAX} rules")]
    TooManyRules,
    /// A line that begins like a section and is none: taken for a rule.
    #[error("a section's heading is `[name]`, `^[name]` or `[name][approvals]`, then its owners")]
    Section,
    /// A number of approvals that is none: taken for 1.
    #[error("the number of approvals is a number from 1 on")]
    Approvals,
}

/// A mistake and where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// What.
    pub reason: Reason,
}

/// The whole text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnersError {
    /// Larger than [`TEXT_MAX`].
    #[error("a CODEOWNERS of {0} bytes is larger than {TEXT_MAX}")]
    TooLarge(usize),
}

/// Part of a file. What stands before the first heading is one without a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Section {
    name: Option<String>,
    is_optional: bool,
    approvals: u32,
}

impl Section {
    fn unnamed() -> Self {
        Self { name: None, is_optional: false, approvals: 1 }
    }
}

/// One line with a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    line: usize,
    section: usize,
    owners: Vec<Owner>,
    /// GitLab's `!`.
    is_exclusion: bool,
}

/// Who owns a path, by one section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned<'a> {
    /// The section's name; `None` for rules outside of one, as all of GitHub's are.
    pub section: Option<&'a str>,
    /// Its approval is not asked for.
    pub is_optional: bool,
    /// So many of the owners must approve.
    pub approvals: u32,
    /// At least one.
    pub owners: &'a [Owner],
    /// The line of the rule.
    pub line: usize,
}

/// A CODEOWNERS that was read.
#[derive(Debug, Clone)]
pub struct Owners {
    sections: Vec<Section>,
    rules: Rules,
    mistakes: Vec<Mistake>,
    mistakes_count: usize,
}

impl Owners {
    /// Reads a file's text. Lines with a mistake are told by [`Owners::mistakes`].
    ///
    /// # Errors
    ///
    /// When the text is larger than [`TEXT_MAX`].
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, OwnersError> {
        if text.len() > TEXT_MAX {
            return Err(OwnersError::TooLarge(text.len()));
        }
        Ok(parse::parse(text, dialect))
    }

    /// The first [`MISTAKES_MAX`] mistakes, in the order of their lines.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// So many mistakes there are.
    #[must_use]
    pub fn mistakes_count(&self) -> usize {
        self.mistakes_count
    }

    /// Who owns a path, given from the repository's root: one entry for each section in which somebody does, in the order of sections.
    #[must_use]
    pub fn of(&self, path: &str) -> Vec<Owned<'_>> {
        let path = path.trim_start_matches("./").trim_start_matches('/');
        if path.is_empty() || path.len() > PATH_MAX {
            return Vec::new();
        }
        let mut last: Vec<Option<&Rule>> = vec![None; self.sections.len()];
        let mut is_excluded = vec![false; self.sections.len()];
        for rule in self.rules.matching(path) {
            is_excluded[rule.section] |= rule.is_exclusion;
            last[rule.section] = Some(rule);
        }
        let mut owners = Vec::new();
        for ((section, rule), is_excluded) in self.sections.iter().zip(last).zip(is_excluded) {
            let Some(rule) = rule.filter(|rule| !is_excluded && !rule.owners.is_empty()) else { continue };
            owners.push(Owned {
                section: section.name.as_deref(),
                is_optional: section.is_optional,
                approvals: section.approvals,
                owners: &rule.owners,
                line: rule.line,
            });
        }
        owners
    }

    /// All who own a path, by whichever section.
    #[must_use]
    pub fn all_of(&self, path: &str) -> BTreeSet<&Owner> {
        self.of(path).into_iter().flat_map(|owned| owned.owners).collect()
    }
}

#[cfg(test)]
mod tests;
