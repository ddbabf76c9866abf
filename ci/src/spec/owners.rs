//! The CODEOWNERS of a commit: which file it is, by whose rules it is read, what of it is not understood.
//!
//! Each forge looks at three places and takes the first. Which forge it is, the repository's address says; where that says nothing, the
//! files do: `.gitlab/CODEOWNERS` and `.gitlab-ci.yml` are GitLab's. It reads the commit and nothing else.

use andon_figures::owners::{Dialect, Owners, TEXT_MAX};
use andon_proto::{CodeOwners, OwnersRules};

use crate::config::{Note, Place};
use crate::git::{GitError, Kind, Snapshot, host_name};

const GITHUB: [&str; 3] = [".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS"];
const GITLAB: [&str; 3] = ["CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS"];
/// Mistakes that are told; the others are counted.
const TOLD_MAX: usize = 5;

/// What there is of it, and what a person should know.
pub(super) fn of_commit(
    snapshot: &Snapshot<'_>,
    repository: &str,
) -> Result<(Option<CodeOwners>, Vec<Note>), GitError> {
    let dialect = dialect(snapshot, repository);
    let (places, rules) = match dialect {
        Dialect::GitHub => (GITHUB, OwnersRules::Github),
        Dialect::GitLab => (GITLAB, OwnersRules::Gitlab),
    };
    let is_file = |path: &&str| matches!(snapshot.kind(path), Some(Kind::File { .. }));
    let Some(path) = places.into_iter().find(is_file) else { return Ok((None, Vec::new())) };
    let unread = |why: String| {
        let message = format!("nobody owns anything: {why}");
        Ok((None, vec![Note { place: Some(Place::start_of(path)), message }]))
    };
    let size = snapshot.size(path);
    if size > TEXT_MAX as u64 {
        return unread(format!("the file has {size} bytes, and {TEXT_MAX} are read"));
    }
    let bytes = snapshot.read(path)?.unwrap_or_default();
    let Ok(text) = String::from_utf8(bytes) else { return unread("the file is not UTF-8".to_owned()) };
    let notes = match Owners::parse(&text, dialect) {
        Ok(owners) => told(path, &owners),
        Err(error) => return unread(error.to_string()),
    };
    Ok((Some(CodeOwners { path: path.to_owned(), rules: rules.into(), text }), notes))
}

fn dialect(snapshot: &Snapshot<'_>, repository: &str) -> Dialect {
    let host = host_name(repository).to_ascii_lowercase();
    let names = |forge: &str| host.split('.').any(|label| label == forge);
    let has = |path: &str| matches!(snapshot.kind(path), Some(Kind::File { .. }));
    let is_gitlab = if names("github") || names("gitlab") {
        names("gitlab")
    } else {
        !has(GITHUB[0]) && (has(GITLAB[2]) || has(".gitlab-ci.yml"))
    };
    if is_gitlab { Dialect::GitLab } else { Dialect::GitHub }
}

fn told(path: &str, owners: &Owners) -> Vec<Note> {
    let mut notes: Vec<Note> = owners
        .mistakes()
        .iter()
        .take(TOLD_MAX)
        .map(|mistake| {
            let line = u32::try_from(mistake.line).unwrap_or(u32::MAX);
            let place = Some(Place { line, ..Place::start_of(path) });
            Note { place, message: mistake.reason.to_string() }
        })
        .collect();
    if owners.mistakes_count() > TOLD_MAX {
        let more = owners.mistakes_count() - TOLD_MAX;
        let message = format!("and {more} more mistakes; lines without one hold");
        notes.push(Note { place: Some(Place::start_of(path)), message });
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRepo;

    fn found(files: &[(&str, &str)], repository: &str) -> (Option<CodeOwners>, Vec<String>) {
        let repo = TestRepo::sample();
        for (path, text) in files {
            repo.write(path, text.as_bytes());
        }
        repo.commit("owners");
        let (open, head) = (repo.open(), repo.head());
        let snapshot = open.snapshot(&head).expect("a commit");
        let (owners, notes) = of_commit(&snapshot, repository).expect("it is read");
        (owners, notes.iter().map(ToString::to_string).collect())
    }

    fn place(files: &[&str], repository: &str) -> Option<(String, OwnersRules)> {
        let files: Vec<_> = files.iter().map(|path| (*path, "* @all\n")).collect();
        found(&files, repository).0.map(|owners| (owners.path.clone(), owners.rules()))
    }

    #[test]
    fn each_forge_has_its_places_and_takes_the_first() {
        let (github, gitlab) = (OwnersRules::Github, OwnersRules::Gitlab);
        let all = [".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS"];
        let at = |path: &str, rules| Some((path.to_owned(), rules));
        assert_eq!(place(&all, "https://github.com/acme/shop"), at(all[0], github));
        assert_eq!(place(&all[1..], "git@github.com:acme/shop.git"), at(all[1], github));
        assert_eq!(place(&all[2..], "ssh://git@github.com:22/acme/shop"), at(all[2], github));
        assert_eq!(place(&all[3..], "https://github.com/acme/shop"), None);
        assert_eq!(place(&all, "https://gitlab.example.com/acme/shop"), at(all[1], gitlab));
        assert_eq!(place(&all[2..], "https://gitlab.com/acme/shop"), at(all[2], gitlab));
        assert_eq!(place(&[all[0], all[3]], "https://gitlab.com/acme/shop"), at(all[3], gitlab));
    }

    #[test]
    fn where_the_address_says_nothing_the_files_do() {
        let (github, gitlab) = (OwnersRules::Github, OwnersRules::Gitlab);
        let at = |path: &str, rules| Some((path.to_owned(), rules));
        assert_eq!(place(&["CODEOWNERS"], "/srv/git/gitlab/shop.git"), at("CODEOWNERS", github));
        assert_eq!(
            place(&["CODEOWNERS", ".gitlab-ci.yml"], "https://git.acme/shop"),
            at("CODEOWNERS", gitlab)
        );
        assert_eq!(place(&[".gitlab/CODEOWNERS"], ""), at(".gitlab/CODEOWNERS", gitlab));
        assert_eq!(
            place(&[".github/CODEOWNERS", ".gitlab-ci.yml"], ""),
            at(".github/CODEOWNERS", github),
            "a mirror of both"
        );
        assert_eq!(place(&[], ""), None);
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_what_cannot_be_read_is_nobodys() {
        let text = "* @all\n!a @b\n".to_owned() + &"!x @y\n".repeat(9);
        let (owners, notes) = found(&[("CODEOWNERS", &text)], "");
        assert!(owners.is_some_and(|owners| owners.text == text));
        assert_eq!(notes[0], "CODEOWNERS:2:1: a pattern cannot be negated with `!`");
        assert_eq!(notes.len(), TOLD_MAX + 1);
        assert!(notes[TOLD_MAX].contains("and 5 more mistakes"), "{notes:?}");

        let huge = "# ".to_owned() + &"x".repeat(TEXT_MAX);
        let (owners, notes) = found(&[("CODEOWNERS", &huge)], "");
        assert!(owners.is_none() && notes[0].contains("nobody owns anything"), "{notes:?}");
        assert_eq!(found(&[("docs/readme", "x")], ""), (None, Vec::new()));
    }
}
