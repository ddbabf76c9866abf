//! Pull requests that are known, and which commit of each may run. The decision is pure; the memory is a ledger.
//!
//! An approval is of one commit. A later push to the same pull request needs another one.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, LedgerError};
use super::settings::ForkPolicy;
use crate::forge::Kind;
use crate::git::CommitId;

/// The most pull requests that are remembered.
const PULLS_MAX: usize = 20_000;
/// The folder in which `andon approve` leaves its word.
const SPOOL: &str = "approvals";
/// The most approvals of that folder that are looked at in one go.
const SPOOL_MAX: usize = 1000;

/// A pull request, as its last delivery told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// Full id of the head.
    pub commit: String,
    /// The head is in another repository.
    pub fork: bool,
    /// The commit that may run, and who said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<(String, String)>,
    /// When it was last heard of.
    pub seen_unix_ms: u64,
}

/// What becomes of a pull request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It runs; for a fork with who approved it, if somebody has.
    Run { approved_by: Option<String> },
    /// Somebody has to approve it first.
    Wait,
    /// Forks do not run.
    Never,
}

/// What the policy says of a head.
pub(super) fn decide(policy: ForkPolicy, pull: &Known) -> Decision {
    let approved_by =
        pull.approved.as_ref().filter(|(commit, _)| *commit == pull.commit).map(|(_, by)| by.clone());
    match (pull.fork, policy, approved_by) {
        (false, _, _) => Decision::Run { approved_by: None },
        (true, ForkPolicy::Never, _) => Decision::Never,
        (true, _, Some(by)) => Decision::Run { approved_by: Some(by) },
        (true, ForkPolicy::Always, None) => Decision::Run { approved_by: None },
        (true, ForkPolicy::AfterApproval, None) => Decision::Wait,
    }
}

/// Why nothing was approved.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// The gateway has never heard of it.
    #[error("pull request {number} of {project} is not known: no webhook has told of it")]
    Unknown {
        /// The project.
        project: String,
        /// The pull request.
        number: u64,
    },
    /// It is somewhere else by now.
    #[error("the head of pull request {number} is {head}, not {wanted}: look at it again, then approve that")]
    Moved {
        /// The pull request.
        number: u64,
        /// Its head.
        head: String,
        /// What was to be approved.
        wanted: String,
    },
    /// Its commits are the project's own.
    #[error("pull request {0} is not from a fork: it needs no approval")]
    NotAFork(u64),
    /// Not a commit.
    #[error("{0} is no commit: seven to forty hex digits")]
    Commit(String),
    /// The gateway's folder.
    #[error("cannot leave the approval in {path}")]
    Spool {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is known cannot be read.
    #[error("cannot read what the gateway knows")]
    Ledger(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// All projects' pull requests.
#[derive(Debug)]
pub(super) struct Pulls(Mutex<Ledger<Known>>);

fn key(project: &str, number: u64) -> String {
    format!("{project}/{number}")
}

/// Whether this commit of the pull request is the one that is meant, and may be approved at all.
fn approvable(number: u64, known: &Known, wanted: Option<&str>) -> Result<(), ApproveError> {
    if !known.fork {
        return Err(ApproveError::NotAFork(number));
    }
    match wanted {
        Some(wanted) if !known.commit.starts_with(wanted) => {
            Err(ApproveError::Moved { number, head: known.commit.clone(), wanted: wanted.to_owned() })
        }
        _ => Ok(()),
    }
}

impl Pulls {
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        Ok(Self(Mutex::new(Ledger::open(path.to_owned())?)))
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<Known>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Remembers where a pull request's head is, and gives what is known of it.
    pub(super) fn see(
        &self,
        project: &str,
        number: u64,
        commit: &str,
        fork: bool,
        now_unix_ms: u64,
    ) -> Result<Known, LedgerError> {
        let mut ledger = self.ledger();
        let key = key(project, number);
        let approved = ledger.entries().get(&key).and_then(|known| known.approved.clone());
        let known = Known { commit: commit.to_owned(), fork, approved, seen_unix_ms: now_unix_ms };
        let mut changes = vec![(key, Some(known.clone()))];
        if ledger.entries().len() >= PULLS_MAX {
            let oldest = ledger.entries().iter().min_by_key(|(_, known)| known.seen_unix_ms);
            changes.extend(oldest.map(|(key, _)| (key.clone(), None)));
        }
        ledger.change(changes)?;
        Ok(known)
    }

    /// True once for each project: the pull requests that are open then are old ones, as nobody told of them.
    pub(super) fn is_first_look(&self, project: &str, now_unix_ms: u64) -> Result<bool, LedgerError> {
        let mut ledger = self.ledger();
        // No forge numbers one so.
        let marker = key(project, 0);
        if ledger.entries().contains_key(&marker) {
            return Ok(false);
        }
        let looked = Known { commit: String::new(), fork: false, approved: None, seen_unix_ms: now_unix_ms };
        ledger.put(&marker, looked)?;
        Ok(true)
    }

    /// What is known of a pull request.
    pub(super) fn get(&self, project: &str, number: u64) -> Option<Known> {
        self.ledger().entries().get(&key(project, number)).cloned()
    }

    /// Lets the head run, if it is the one that is meant.
    pub(super) fn approve(
        &self,
        project: &str,
        number: u64,
        wanted: Option<&str>,
        by: &str,
    ) -> Result<Known, ApproveError> {
        let mut ledger = self.ledger();
        let key = key(project, number);
        let unknown = || ApproveError::Unknown { project: project.to_owned(), number };
        let mut known = ledger.entries().get(&key).cloned().ok_or_else(unknown)?;
        approvable(number, &known, wanted)?;
        known.approved = Some((known.commit.clone(), by.to_owned()));
        ledger.put(&key, known.clone()).map_err(|error| ApproveError::Ledger(Box::new(error)))?;
        Ok(known)
    }
}

/// For `andon approve`, in another process than the gateway's: pins the head that is known now (or the one that was
/// named) and leaves word in the gateway's folder. Gives the commit.
pub fn leave_approval(
    folder: &Path,
    project: &str,
    number: u64,
    wanted: Option<&str>,
) -> Result<CommitId, ApproveError> {
    if wanted.is_some_and(|wanted| !crate::forge::is_prefix(wanted)) {
        return Err(ApproveError::Commit(crate::config::quoted(wanted.unwrap_or_default())));
    }
    let known = Ledger::<Known>::look(&folder.join(super::PULLS_FILE));
    let known = known.map_err(|error| ApproveError::Ledger(Box::new(error)))?;
    let unknown = || ApproveError::Unknown { project: project.to_owned(), number };
    let known = known.get(&key(project, number)).ok_or_else(unknown)?;
    approvable(number, known, wanted)?;
    let commit = CommitId::parse(&known.commit).map_err(|error| ApproveError::Ledger(Box::new(error)))?;
    let spool = folder.join(SPOOL);
    let path = spool.join(format!("{project}@{number}@{commit}"));
    let write = || {
        std::fs::create_dir_all(&spool)?;
        std::fs::File::create(&path)?.sync_all()?;
        std::fs::File::open(&spool)?.sync_all()
    };
    write().map_err(|source| ApproveError::Spool { path: spool.clone(), source })?;
    Ok(commit)
}

/// What was left for a project: pull request and commit. It goes away with [`taken`].
pub(super) fn left(folder: &Path, project: &str) -> Vec<(u64, CommitId)> {
    let Ok(entries) = std::fs::read_dir(folder.join(SPOOL)) else { return Vec::new() };
    let names = entries.take(SPOOL_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let of_project = names.filter_map(|name| {
        let mut parts = name.split('@');
        let (of, number, commit) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        (of == project).then(|| Some((number, CommitId::parse(commit).ok()?)))?
    });
    of_project.collect()
}

/// Removes what was left.
pub(super) fn taken(folder: &Path, project: &str, number: u64, commit: &CommitId) {
    let path = folder.join(SPOOL).join(format!("{project}@{number}@{commit}"));
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

/// The ref under which a forge keeps the head of a pull request, and its name in the mirror.
pub(super) fn refs(kind: Kind, number: u64) -> (String, String) {
    (kind.pull_ref(number), format!("refs/andon/pull/{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(fork: bool, approved: Option<char>) -> Known {
        let approved = approved.map(|digit| (digit.to_string().repeat(40), "ann".to_owned()));
        Known { commit: "a".repeat(40), fork, approved, seen_unix_ms: 0 }
    }

    #[test]
    fn a_fork_runs_as_the_policy_says_and_an_approval_is_of_one_commit() {
        use ForkPolicy::{AfterApproval, Always, Never};
        let run = |by: Option<&str>| Decision::Run { approved_by: by.map(str::to_owned) };
        for (policy, fork, approved, expected) in [
            (Never, false, None, run(None)),
            (AfterApproval, false, None, run(None)),
            (Never, true, Some('a'), Decision::Never),
            (AfterApproval, true, None, Decision::Wait),
            (AfterApproval, true, Some('a'), run(Some("ann"))),
            (AfterApproval, true, Some('b'), Decision::Wait),
            (Always, true, None, run(None)),
            (Always, true, Some('b'), run(None)),
            (Always, true, Some('a'), run(Some("ann"))),
        ] {
            assert_eq!(decide(policy, &known(fork, approved)), expected, "{policy:?} {fork} {approved:?}");
        }
    }

    #[test]
    fn a_push_after_the_approval_needs_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let pulls = Pulls::open(&folder.path().join("pulls")).unwrap();
        let (first, second) = ("a".repeat(40), "b".repeat(40));
        pulls.see("shop", 7, &first, true, 1).unwrap();
        let approved = pulls.approve("shop", 7, Some("aaaaaaa"), "ann").unwrap();
        assert_ne!(decide(ForkPolicy::AfterApproval, &approved), Decision::Wait);
        let moved = pulls.see("shop", 7, &second, true, 2).unwrap();
        assert_eq!(decide(ForkPolicy::AfterApproval, &moved), Decision::Wait);
        let error = pulls.approve("shop", 7, Some("aaaaaaa"), "ann").expect_err("the head moved");
        assert!(matches!(error, ApproveError::Moved { .. }), "{error}");
        drop(pulls);
        let again = Pulls::open(&folder.path().join("pulls")).unwrap().get("shop", 7).unwrap();
        assert_eq!(again, moved, "also after a restart");
    }

    #[test]
    fn what_is_left_by_the_command_is_pinned_to_the_head_of_that_moment() {
        let folder = tempfile::tempdir().unwrap();
        let pulls = Pulls::open(&folder.path().join(super::super::PULLS_FILE)).unwrap();
        pulls.see("shop", 7, &"a".repeat(40), true, 1).unwrap();
        pulls.see("shop", 8, &"c".repeat(40), false, 1).unwrap();
        let leave = |number, wanted| leave_approval(folder.path(), "shop", number, wanted);
        let commit = leave(7, None).unwrap();
        assert!(matches!(leave(7, Some("bbbbbbb")), Err(ApproveError::Moved { .. })));
        assert!(matches!(leave(7, Some("../..")), Err(ApproveError::Commit(_))));
        assert!(matches!(leave(8, None), Err(ApproveError::NotAFork(8))));
        assert!(matches!(leave(9, None), Err(ApproveError::Unknown { .. })));
        assert_eq!(left(folder.path(), "shop"), [(7, commit.clone())]);
        assert!(left(folder.path(), "other").is_empty());
        taken(folder.path(), "shop", 7, &commit);
        assert!(left(folder.path(), "shop").is_empty());
    }
}
