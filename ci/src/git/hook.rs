//! The `post-receive` hook of a bare repository: a short script that hands a push's lines to `andon hook receive`.
//!
//! Nothing that goes wrong in it may fail or hang a push: git runs it after the push is done, but waits for its end.
//! So the script ends with 0 whatever happens, and `timeout` bounds it from outside where that program exists
//! (the command bounds itself from inside in any case).

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::Repository;
use crate::config::is_name;

/// The first words of a hook of ours, after the interpreter's line.
const MARK: &str = "# Written by `andon hook install`";
/// Where another hook goes that was there before.
const CHAINED: &str = "post-receive.before-andon";
/// After this many seconds `timeout` ends the command, which should have ended itself at [`crate::hook::TIME_MAX`].
const SCRIPT_SECONDS_MAX: u64 = crate::hook::TIME_MAX.as_secs() + 15;

/// What a hook is to do.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Absolute path of the `andon` program.
    pub andon: PathBuf,
    /// The project's name.
    pub project: String,
    /// The coordinator's address.
    pub coordinator: String,
    /// A file with the client token, readable by whoever receives pushes; absent for none.
    pub token_file: Option<PathBuf>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// There was no hook.
    New,
    /// One of ours was there, with other values.
    Replaced,
    /// Exactly this one was there.
    Unchanged,
    /// Another hook was there; it runs first.
    Chained,
}

/// Why no hook was written.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// No repository.
    #[error(transparent)]
    Repository(#[from] super::GitError),
    /// Pushes go to bare repositories.
    #[error("{0} has a work tree: the hook belongs into the bare repository that is pushed to")]
    NotBare(PathBuf),
    /// git would not look there.
    #[error("{0} has core.hooksPath set, so git does not run hooks from its own folder")]
    HooksPath(PathBuf),
    /// A hook of somebody else.
    #[error("{0} exists and is not Andon's: with --force it is kept as {CHAINED} and runs first")]
    Foreign(PathBuf),
    /// Both a foreign hook and one kept before.
    #[error("{0} exists already: which of the two hooks is to be kept cannot be known")]
    TwoForeign(PathBuf),
    /// A value that cannot stand in the script.
    #[error("{what} {value:?} cannot be used in a hook: {reason}")]
    Value {
        /// Which.
        what: &'static str,
        /// As given.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// The file system.
    #[error("cannot write {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes the hook into a bare repository. Doing it again changes nothing.
///
/// A hook that is not ours stays as it is, and this fails, unless `force`: then it is kept as
/// `post-receive.before-andon` and runs first, with the same input.
pub fn install(repository: &Path, hook: &Hook, force: bool) -> Result<Installed, HookError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| HookError::Io { path, source }
    };
    let opened = Repository::open(repository)?;
    if !opened.is_bare() {
        return Err(HookError::NotBare(repository.to_owned()));
    }
    let configured = opened.inner.config().and_then(|config| config.get_path("core.hooksPath"));
    if configured.is_ok() {
        return Err(HookError::HooksPath(repository.to_owned()));
    }
    let root = fs::canonicalize(opened.inner.path()).map_err(failed(repository))?;
    let script = script(&root, hook)?;
    let folder = root.join("hooks");
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let path = folder.join("post-receive");
    let before = match fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(&path)(error)),
    };
    let done = match before {
        None => Installed::New,
        Some(bytes) if bytes == script.as_bytes() && is_executable(&path) => return Ok(Installed::Unchanged),
        Some(bytes) if String::from_utf8_lossy(&bytes).contains(MARK) => Installed::Replaced,
        Some(_) if !force => return Err(HookError::Foreign(path)),
        Some(_) => {
            let kept = folder.join(CHAINED);
            if kept.symlink_metadata().is_ok() {
                return Err(HookError::TwoForeign(kept));
            }
            fs::rename(&path, &kept).map_err(failed(&kept))?;
            Installed::Chained
        }
    };
    write(&folder, &path, &script).map_err(failed(&path))?;
    Ok(done)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0o111)
}

/// Whole or not at all: a push may run the hook at any moment.
fn write(folder: &Path, path: &Path, script: &str) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".post-receive-").tempfile_in(folder)?;
    file.write_all(script.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn script(repository: &Path, hook: &Hook) -> Result<String, HookError> {
    if !is_name(&hook.project) {
        let reason = crate::config::NAME_FORM;
        return Err(HookError::Value { what: "project", value: hook.project.clone(), reason });
    }
    let mut command = vec![
        path_word("program", &hook.andon)?,
        "hook receive --repo".to_owned(),
        path_word("repository", repository)?,
        "--project".to_owned(),
        shell_word("project", &hook.project)?,
        "--coordinator".to_owned(),
        shell_word("coordinator", &hook.coordinator)?,
    ];
    if let Some(file) = &hook.token_file {
        command.extend(["--token-file".to_owned(), path_word("token file", file)?]);
    }
    let command = command.join(" ");
    Ok(format!(
        r#"#!/bin/sh
{MARK}: starts a run for what is pushed.
# Whatever goes wrong here is told to whoever pushes, and never fails or holds up the push.
pushed=$(cat)
before=$(dirname "$0")/{CHAINED}
if [ -x "$before" ]; then
  printf '%s\n' "$pushed" | "$before" || echo "andon: {CHAINED} ended with $?"
fi
limit=
if timeout 1 true 2>/dev/null; then limit='timeout -k 5 {SCRIPT_SECONDS_MAX}'; fi
printf '%s\n' "$pushed" | $limit {command} 2>&1 || echo "andon: no run was started (status $?)"
exit 0
"#
    ))
}

fn path_word(what: &'static str, path: &Path) -> Result<String, HookError> {
    let refused = |reason| HookError::Value { what, value: path.display().to_string(), reason };
    if !path.is_absolute() {
        return Err(refused("it must be an absolute path"));
    }
    shell_word(what, path.to_str().ok_or_else(|| refused("it is not UTF-8"))?)
}

/// One word for a shell, whatever is in it.
fn shell_word(what: &'static str, value: &str) -> Result<String, HookError> {
    if value.chars().any(char::is_control) {
        let reason = "it has control characters";
        return Err(HookError::Value { what, value: value.to_owned(), reason });
    }
    Ok(format!("'{}'", value.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests;
