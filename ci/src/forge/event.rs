//! What a delivery asks for, whichever forge it is from; and the commands that comments may hold.

use serde::{Deserialize, Serialize};

use super::client::Author;

/// The longest comment that is read for a command.
const COMMENT_LEN_MAX: usize = 64 * 1024;
/// What a command begins with, alone on its line.
const PREFIX: &str = "/andon";

/// What a delivery means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Something is to be done.
    Work(Event),
    /// Nothing is, for this reason.
    Nothing(String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A branch is at another commit.
    Push {
        /// Without `refs/heads/`.
        branch: String,
        /// Full id.
        commit: String,
    },
    /// A tag is there.
    Tag {
        /// Without `refs/tags/`.
        tag: String,
        /// Full id.
        commit: String,
    },
    /// A pull or merge request was opened, or its head moved.
    Pull {
        /// As people know it.
        number: u64,
        /// Full id of the head.
        commit: String,
        /// The head is in another repository.
        fork: bool,
    },
    /// Somebody who may write asked in the forge's pages for another run.
    Rerun {
        /// Full id.
        commit: String,
        /// Whoever asked.
        by: String,
    },
    /// A comment on a pull request gives a command.
    Comment {
        /// Of the pull request.
        number: u64,
        /// What is wanted.
        command: Command,
        /// By whom.
        by: Author,
        /// Whether they may.
        may: May,
    },
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Push { branch, commit } => write!(f, "push of {branch} at {}", short(commit)),
            Self::Tag { tag, commit } => write!(f, "tag {tag} at {}", short(commit)),
            Self::Pull { number, commit, fork } => {
                let whence = if *fork { " from a fork" } else { "" };
                write!(f, "pull request {number}{whence} at {}", short(commit))
            }
            Self::Rerun { commit, by } => write!(f, "rerun of {} asked for by {by}", short(commit)),
            Self::Comment { number, command, by, .. } => {
                write!(f, "{command} by {} on pull request {number}", by.name)
            }
        }
    }
}

/// The first characters of a commit's id.
pub(crate) fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// Whether somebody may give commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum May {
    /// The delivery says that they may.
    Yes,
    /// It says that they may not.
    No,
    /// It does not say: the forge has to be asked.
    Ask,
}

/// A command of a comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "do")]
pub enum Command {
    /// Run what failed once more, or everything.
    Rerun {
        /// Everything.
        all: bool,
    },
    /// Let a fork's commit run.
    Approve {
        /// Which: the beginning of its id, at least seven digits; else the head that is known.
        commit: Option<String>,
    },
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rerun { all: false } => f.write_str("rerun"),
            Self::Rerun { all: true } => f.write_str("rerun all"),
            Self::Approve { commit: None } => f.write_str("approve"),
            Self::Approve { commit: Some(commit) } => write!(f, "approve {commit}"),
        }
    }
}

/// The command of a comment: the first line that begins with `/andon`. Quoted lines (`> /andon …`) and code blocks
/// that are indented are none.
pub(super) fn command(comment: &str) -> Result<Command, String> {
    let comment = &comment[..comment.floor_char_boundary(COMMENT_LEN_MAX)];
    let line = comment.lines().find(|line| {
        line.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    });
    let Some(line) = line else { return Err("a comment without a command".to_owned()) };
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    match words.as_slice() {
        ["rerun"] => Ok(Command::Rerun { all: false }),
        ["rerun", "all"] => Ok(Command::Rerun { all: true }),
        ["approve"] => Ok(Command::Approve { commit: None }),
        ["approve", commit] if is_prefix(commit) => {
            Ok(Command::Approve { commit: Some(commit.to_ascii_lowercase()) })
        }
        _ => Err(format!(
            "{} is no command: /andon rerun, /andon rerun all, /andon approve, /andon approve COMMIT",
            crate::config::quoted(line)
        )),
    }
}

/// Seven to forty hex digits.
pub(crate) fn is_prefix(commit: &str) -> bool {
    (7..=40).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_on_a_line_of_their_own() {
        let found = |text: &str| command(text).expect(text);
        assert_eq!(found("/andon rerun"), Command::Rerun { all: false });
        assert_eq!(found("please\r\n/andon  rerun   all\r\nthanks"), Command::Rerun { all: true });
        assert_eq!(found("/andon approve"), Command::Approve { commit: None });
        assert_eq!(found("/andon approve ABCDEF0"), Command::Approve { commit: Some("abcdef0".into()) });
    }

    #[test]
    fn what_only_mentions_or_quotes_a_command_is_none() {
        for text in
            ["", "> /andon rerun", "    /andon rerun", "use /andon rerun", "/andonrerun", "/Andon rerun"]
        {
            assert_eq!(command(text).expect_err(text), "a comment without a command");
        }
    }

    #[test]
    fn a_wrong_command_is_answered_with_those_that_are() {
        for text in
            ["/andon", "/andon reboot", "/andon approve ../x", "/andon approve abc", "/andon rerun all now"]
        {
            let said = command(text).expect_err(text);
            assert!(said.contains("/andon approve COMMIT"), "{said}");
        }
    }
}
