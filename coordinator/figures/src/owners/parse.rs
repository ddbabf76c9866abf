//! The lines of a CODEOWNERS. See `owners.rs` for how the dialects differ.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::pattern::Glob;
use super::rules::Rules;
use super::{
    Dialect, MISTAKES_MAX, Mistake, OWNERS_MAX, Owner, Owners, RULES_MAX, Reason, Role, Rule, Section,
    WORD_MAX, pattern,
};

/// A mistake names no more of what was written, in characters.
const SHOWN_MAX: usize = 64;

/// What is read so far.
struct Reading {
    dialect: Dialect,
    sections: Vec<Section>,
    /// Sections by their names in small letters.
    names: HashMap<String, usize>,
    rules: Vec<Rule>,
    globs: Vec<(usize, Glob)>,
    mistakes: Vec<Mistake>,
    mistakes_count: usize,
    /// Where rules go now, and whom they belong to unless they say so.
    section: usize,
    defaults: Vec<Owner>,
}

/// A section's heading.
struct Heading<'a> {
    name: &'a str,
    is_optional: bool,
    /// As it was written.
    approvals: Option<&'a str>,
    owners: &'a str,
}

pub(super) fn parse(text: &str, dialect: Dialect) -> Owners {
    let mut reading = Reading {
        dialect,
        sections: vec![Section::unnamed()],
        names: HashMap::new(),
        rules: Vec::new(),
        globs: Vec::new(),
        mistakes: Vec::new(),
        mistakes_count: 0,
        section: 0,
        defaults: Vec::new(),
    };
    for (line, written) in (1..).zip(text.trim_start_matches('\u{FEFF}').lines()) {
        let written = written.trim();
        if !written.is_empty() && !written.starts_with('#') {
            reading.line(line, written);
        }
    }
    reading.done()
}

impl Reading {
    fn mistake(&mut self, line: usize, reason: Reason) {
        self.mistakes_count += 1;
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(Mistake { line, reason });
        }
    }

    fn line(&mut self, line: usize, written: &str) {
        let done = match self.dialect {
            Dialect::GitHub => self.github(line, written),
            Dialect::GitLab => self.gitlab(line, written),
        };
        if let Err(reason) = done {
            self.mistake(line, reason);
        }
    }

    fn github(&mut self, line: usize, written: &str) -> Result<(), Reason> {
        if written.starts_with('!') {
            return Err(Reason::Negation);
        }
        if written.starts_with("\\#") {
            return Err(Reason::Pound);
        }
        let (pattern, rest) = first_word(written);
        let words = rest.split_whitespace().take_while(|word| !word.starts_with('#'));
        let owners = words.map(|word| owner(word, Dialect::GitHub)).collect::<Result<Vec<_>, _>>()?;
        self.rule(line, pattern, owners, false)
    }

    fn gitlab(&mut self, line: usize, written: &str) -> Result<(), Reason> {
        if written.starts_with('[') || written.starts_with("^[") {
            let Some(heading) = heading(written) else {
                // GitLab takes it for a rule. If it is none, the one mistake is told.
                let (pattern, rest) = first_word(written);
                let owners = rest.split_whitespace().filter_map(|word| owner(word, Dialect::GitLab).ok());
                let _ = self.rule(line, pattern, owners.take(OWNERS_MAX).collect(), false);
                return Err(Reason::Section);
            };
            return self.heading(line, &heading);
        }
        let (is_exclusion, written) = match written.strip_prefix('!') {
            Some(excluded) => (true, excluded),
            None => (false, written),
        };
        let (pattern, rest) = first_word(written);
        if is_exclusion {
            return self.rule(line, pattern, Vec::new(), true);
        }
        let mut owners = self.owners(line, rest)?;
        if owners.is_empty() {
            owners.clone_from(&self.defaults);
        }
        let has_owner = !owners.is_empty();
        self.rule(line, pattern, owners, false)?;
        if has_owner { Ok(()) } else { Err(Reason::NoOwner) }
    }

    /// The owners among some words; each other word is a mistake, but for those of what looks like a comment.
    fn owners(&mut self, line: usize, words: &str) -> Result<Vec<Owner>, Reason> {
        let (mut owners, mut is_comment) = (Vec::new(), false);
        for word in words.split_whitespace() {
            is_comment |= word.starts_with('#');
            match owner(word, Dialect::GitLab) {
                Ok(owner) if owners.len() < OWNERS_MAX => owners.push(owner),
                Ok(_) => return Err(Reason::TooManyOwners),
                Err(_) if is_comment => {}
                Err(reason) => self.mistake(line, reason),
            }
        }
        Ok(owners)
    }

    fn heading(&mut self, line: usize, heading: &Heading<'_>) -> Result<(), Reason> {
        if heading.name.len() > WORD_MAX {
            return Err(Reason::TooLong);
        }
        let approvals = heading.approvals.map(|written| written.parse::<u32>().unwrap_or(0));
        if approvals == Some(0) {
            self.mistake(line, Reason::Approvals);
        }
        let approvals = approvals.unwrap_or(1).max(1);
        let is_full = self.sections.len() > RULES_MAX;
        match self.names.entry(heading.name.to_lowercase()) {
            Entry::Occupied(known) => {
                self.section = *known.get();
                let known = &mut self.sections[self.section];
                known.is_optional &= heading.is_optional;
                known.approvals = known.approvals.max(approvals);
            }
            Entry::Vacant(_) if is_full => return Err(Reason::TooManyRules),
            Entry::Vacant(new) => {
                self.section = *new.insert(self.sections.len());
                let name = Some(heading.name.to_owned());
                self.sections.push(Section { name, is_optional: heading.is_optional, approvals });
            }
        }
        self.defaults = Vec::new();
        self.defaults = self.owners(line, heading.owners)?;
        Ok(())
    }

    fn rule(
        &mut self,
        line: usize,
        written: &str,
        owners: Vec<Owner>,
        is_exclusion: bool,
    ) -> Result<(), Reason> {
        if owners.len() > OWNERS_MAX {
            return Err(Reason::TooManyOwners);
        }
        if self.rules.len() >= RULES_MAX {
            return Err(Reason::TooManyRules);
        }
        let globs = pattern::globs(written, self.dialect)?;
        let rule = self.rules.len();
        self.globs.extend(globs.into_iter().map(|glob| (rule, glob)));
        self.rules.push(Rule { line, section: self.section, owners, is_exclusion });
        Ok(())
    }

    fn done(mut self) -> Owners {
        self.mistakes.sort_by_key(|mistake| mistake.line);
        let Self { sections, rules, globs, mistakes, mistakes_count, .. } = self;
        Owners { sections, rules: Rules::new(rules, globs), mistakes, mistakes_count }
    }
}

/// A line's pattern and what comes after it: the pattern ends at the first space that is not escaped.
fn first_word(written: &str) -> (&str, &str) {
    let mut is_escaped = false;
    let end = written.find(|c: char| {
        let ends = c.is_whitespace() && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    written.split_at(end.unwrap_or(written.len()))
}

/// `^[name][2] @owner …`; `None` where it is no heading.
fn heading(written: &str) -> Option<Heading<'_>> {
    let (is_optional, rest) = match written.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, written),
    };
    let (name, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let (approvals, owners) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(approvals, owners)| (Some(approvals), owners))?,
        None => (None, rest),
    };
    let is_heading =
        !name.trim().is_empty() && (owners.is_empty() || owners.starts_with(char::is_whitespace));
    is_heading.then_some(Heading { name: name.trim(), is_optional, approvals, owners })
}

/// Who a word names.
fn owner(word: &str, dialect: Dialect) -> Result<Owner, Reason> {
    if word.len() > WORD_MAX {
        return Err(Reason::TooLong);
    }
    let known = match word.strip_prefix('@') {
        Some(name) => match name.strip_prefix('@') {
            Some(role) if dialect == Dialect::GitLab => role_of(role).map(Owner::Role),
            Some(_) => None,
            None => name_of(name, dialect),
        },
        None => is_address(word).then(|| Owner::Email(word.to_owned())),
    };
    known.ok_or_else(|| Reason::Owner(word.chars().take(SHOWN_MAX).collect()))
}

fn role_of(role: &str) -> Option<Role> {
    match role.to_ascii_lowercase().trim_end_matches('s') {
        "developer" => Some(Role::Developer),
        "maintainer" => Some(Role::Maintainer),
        "owner" => Some(Role::Owner),
        _ => None,
    }
}

fn name_of(name: &str, dialect: Dialect) -> Option<Owner> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = |part: &str| !part.is_empty() && part.chars().all(is_letter);
    let parts = name.split('/').count();
    let is_short = parts <= 2 || dialect == Dialect::GitLab;
    (is_short && name.split('/').all(is_name)).then(|| match parts {
        1 => Owner::Name(name.to_owned()),
        _ => Owner::Team(name.to_owned()),
    })
}

fn is_address(word: &str) -> bool {
    let is_odd =
        |c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | '"' | '#' | ',' | '@');
    let is_part = |part: &str| !part.is_empty() && !part.contains(is_odd);
    word.split_once('@').is_some_and(|(local, domain)| is_part(local) && is_part(domain))
}
