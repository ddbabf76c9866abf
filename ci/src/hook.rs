//! `andon hook receive`: what a repository's `post-receive` hook does with the lines of a push.
//!
//! Tells whoever pushed what became of each branch, in lines that begin with `andon: `. Never fails and never lasts
//! longer than [`TIME_MAX`]: the push is done already, and a poller finds what this missed.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use andon_proto::Trigger;

use crate::clock;
use crate::config::quoted;
use crate::connect::Connection;
use crate::git::{CommitId, Repository, branch_name};
use crate::spec::{self, PrepareError, Prepared, Request};
use crate::submit::{Dedup, submit};

/// The longest time that a push waits for its runs to be started.
pub const TIME_MAX: Duration = Duration::from_secs(60);
/// The most refs of one push that are looked at.
pub const REFS_MAX: usize = 100;
/// The longest line of a push.
const LINE_BYTES_MAX: u64 = 8 * 1024;

/// What the hook was told.
#[derive(Debug, Clone)]
pub struct Receive {
    /// The repository that was pushed to.
    pub repository: PathBuf,
    /// The project's name.
    pub project: String,
    /// The coordinator's address.
    pub coordinator: String,
    /// The client token; empty for none.
    pub token: String,
}

/// One line of a push: a branch and the commit that it is at now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pushed {
    branch: String,
    commit: CommitId,
}

/// Handles a push. `lines` are `old new ref`, one a line, as git writes them; `out` is shown to whoever pushed.
///
/// Dropping the future stops it at any point; submissions are safe to repeat.
pub async fn receive(receive: &Receive, lines: impl BufRead, out: &mut impl Write) {
    let mut said = Said { out };
    let pushed = read_lines(lines, &mut said);
    if pushed.is_empty() {
        return;
    }
    let handled = handle(receive, &pushed, &mut said);
    if tokio::time::timeout(TIME_MAX, Box::pin(handled)).await.is_err() {
        said.line(&format!(
            "gave up after {} s; a gateway that polls finds the push later",
            TIME_MAX.as_secs()
        ));
    }
}

/// Where lines for whoever pushed go. A connection that is gone is no reason to stop.
struct Said<'o, W> {
    out: &'o mut W,
}

impl<W: Write> Said<'_, W> {
    fn line(&mut self, text: &str) {
        for line in text.lines() {
            let _ = writeln!(self.out, "andon: {line}");
        }
        let _ = self.out.flush();
    }

    fn error(&mut self, error: &dyn std::error::Error) {
        self.line(&chain(error));
    }
}

/// An error with its causes, those left out that the text above holds already.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn read_lines<W: Write>(mut lines: impl BufRead, said: &mut Said<'_, W>) -> Vec<Pushed> {
    let mut pushed = Vec::new();
    let mut count = 0;
    loop {
        let mut line = Vec::new();
        match std::io::Read::take(&mut lines, LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return pushed,
            Ok(_) => {}
            Err(error) => {
                said.line(&format!("cannot read what was pushed: {error}"));
                return pushed;
            }
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\n');
        if line.is_empty() {
            continue;
        }
        count += 1;
        if count > REFS_MAX {
            said.line(&format!(
                "more than {REFS_MAX} refs in one push: the rest is left to a gateway that polls"
            ));
            return pushed;
        }
        match parse_line(line) {
            Ok(Some(branch)) => pushed.push(branch),
            Ok(None) => {}
            Err(reason) => said.line(&reason),
        }
    }
}

/// A branch that is there now; `None` for tags, other refs and deletions.
fn parse_line(line: &str) -> Result<Option<Pushed>, String> {
    let mut words = line.splitn(3, ' ');
    let (Some(_), Some(new), Some(reference)) = (words.next(), words.next(), words.next()) else {
        return Err(format!("{} is no line of a push: \"old new ref\" is", quoted(line)));
    };
    if !reference.starts_with("refs/heads/") {
        return Ok(None);
    }
    let Some(branch) = branch_name(reference) else {
        return Err(format!("{} is no name for a branch: not run", quoted(reference)));
    };
    let commit = CommitId::parse(new).map_err(|error| error.to_string())?;
    Ok((!commit.is_zero()).then(|| Pushed { branch: branch.to_owned(), commit }))
}

async fn handle<W: Write>(receive: &Receive, pushed: &[Pushed], said: &mut Said<'_, W>) {
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(error) => return said.line(&format!("cannot make a temporary folder: {error}")),
    };
    let mut connection = None;
    for pushed in pushed {
        let prepared = match prepare(receive, pushed, scratch.path()).await {
            Ok(Some(prepared)) => prepared,
            Ok(None) => continue,
            Err(error) => {
                said.line(&format!("no run for {} {}", pushed.branch, pushed.commit.short()));
                said.error(&error);
                continue;
            }
        };
        for note in &prepared.notes {
            said.line(&note.to_string());
        }
        if connection.is_none() {
            match Connection::open(&receive.coordinator, &receive.token).await {
                Ok(open) => connection = Some(open),
                Err(error) => return said.error(&error),
            }
        }
        let Some(connection) = &connection else { return };
        match submit(connection, &prepared, Dedup::Push).await {
            Ok(done) => {
                let again = if done.existed { " (the commit has its run already)" } else { "" };
                said.line(&format!(
                    "run {run} for {} {}{again} · andon watch {run}",
                    pushed.branch,
                    pushed.commit.short(),
                    run = done.run,
                ));
            }
            Err(error) => said.error(&error),
        }
    }
}

/// `None` where the project does not want runs for this branch, or has no `andon.toml`.
async fn prepare(
    receive: &Receive,
    pushed: &Pushed,
    scratch: &Path,
) -> Result<Option<Prepared>, PrepareError> {
    let (receive, pushed, scratch) = (receive.clone(), pushed.clone(), scratch.to_owned());
    let work = move || {
        let repository = Repository::open(&receive.repository)?;
        prepare_push(&repository, &pushed.branch, &pushed.commit, None, &scratch, |trigger| Request {
            project: receive.project.clone(),
            repository: repository.origin(),
            git_ref: format!("refs/heads/{}", pushed.branch),
            trigger,
            requested_by: "hook".to_owned(),
            submitted_unix_ms: clock::unix_ms(),
        })
    };
    blocking(work).await
}

/// Runs work that reads repositories off the async threads. A panic in it goes on here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and took the work with it: nobody polls this any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A pushed branch made ready, if its own `[triggers]` or the given `branches` want it. For hook and gateway alike.
pub(crate) fn prepare_push(
    repository: &Repository,
    branch: &str,
    commit: &CommitId,
    branches: Option<&[String]>,
    scratch: &Path,
    request: impl FnOnce(Trigger) -> Request,
) -> Result<Option<Prepared>, PrepareError> {
    let Some(triggers) = spec::triggers(repository, commit)? else { return Ok(None) };
    let wanted = match branches {
        Some(branches) => crate::config::branch_matches(branches, branch),
        None => triggers.wants(branch),
    };
    if !wanted {
        return Ok(None);
    }
    spec::prepare(repository, commit, &request(Trigger::Push), scratch).map(Some)
}

#[cfg(test)]
mod tests;
