//! Mirrors of watched repositories: bare clones that the `git` program keeps up to date.
//!
//! What runs is `git` alone, with an environment of our own: no system or user configuration (unless credentials are
//! asked for), no prompts, no hooks, no submodules, only the protocols that [`RemoteUrl`] takes, every object
//! checked, in a process group of its own that is killed when its time is up or nobody waits any more.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::{RemoteUrl, Repository, Way};
use crate::config::is_name;
use crate::forge::guard::{Guard, GuardError};

/// The longest fetch.
pub const FETCH_TIME_MAX: Duration = Duration::from_secs(600);
/// The largest mirror.
pub const MIRROR_BYTES_MAX: u64 = 8 << 30;
/// How often a mirror's size is looked at while git writes into it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What is kept of git's own messages.
const STDERR_BYTES_MAX: u64 = 16 * 1024;

/// Whose credentials a fetch uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Nobody's: neither the user's git configuration nor their ssh agent is seen.
    #[default]
    None,
    /// Those of the user that runs Andon: `~/.gitconfig` with its credential helpers, `~/.ssh`, the ssh agent.
    User,
}

/// Why a mirror is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// A project's name is part of a path.
    #[error("{0} is no name for a project: {form}", form = crate::config::NAME_FORM)]
    Name(String),
    /// It leads where it must not.
    #[error("{url} is not gone to")]
    Address {
        /// From where, without credentials.
        url: String,
        /// Why.
        #[source]
        source: GuardError,
    },
    /// A ref's name is part of git's arguments.
    #[error("{0} is no full name of a ref")]
    Ref(String),
    /// The mirror's folder.
    #[error("cannot make the mirror {path}")]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no `git`, or it cannot be run.
    #[error("cannot run git")]
    Spawn(#[source] std::io::Error),
    /// Took too long.
    #[error("git {what} of {url} took longer than {} s", .limit.as_secs())]
    Time {
        /// Fetch or init.
        what: &'static str,
        /// From where, without credentials.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// Sends more than anybody keeps.
    #[error("git {what} of {url} was stopped: the mirror has more than {limit} bytes")]
    Size {
        /// Fetch or init.
        what: &'static str,
        /// From where, without credentials.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// git refused.
    #[error("git {what} of {url} failed ({status}): {stderr}")]
    Git {
        /// Fetch or init.
        what: &'static str,
        /// From where, without credentials.
        url: String,
        /// How it ended.
        status: ExitStatus,
        /// The beginning of its messages, in one line, control characters escaped.
        stderr: String,
        /// Whether the mirror itself is broken, rather than the source or the way to it.
        damaged: bool,
    },
}

/// One mirrored repository.
#[derive(Debug, Clone)]
pub struct Mirror {
    path: PathBuf,
    url: RemoteUrl,
    credentials: Credentials,
    limit: Duration,
    size_limit: u64,
    guard: Arc<Guard>,
}

impl Mirror {
    /// The mirror of a project beneath `folder`. Another address gets another folder, so that two repositories never
    /// mix.
    pub fn new(
        folder: &Path,
        project: &str,
        url: RemoteUrl,
        credentials: Credentials,
    ) -> Result<Self, MirrorError> {
        if !is_name(project) {
            return Err(MirrorError::Name(crate::config::quoted(project)));
        }
        let address = blake3::hash(url.as_str().as_bytes()).to_hex();
        let path = folder.join(format!("{project}-{}.git", &address[..12]));
        Ok(Self {
            path,
            url,
            credentials,
            limit: FETCH_TIME_MAX,
            size_limit: MIRROR_BYTES_MAX,
            guard: Arc::default(),
        })
    }

    /// Another limit for one call of git.
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Another limit for the size of the mirror.
    pub fn with_size_limit(self, size_limit: u64) -> Self {
        Self { size_limit, ..self }
    }

    /// Other exceptions than none from the rule that internal networks are not gone to.
    pub fn with_guard(self, guard: Arc<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// The bare repository.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings all branches to where they are at the source: new and moved ones, also backwards, and removes those
    /// that are gone. Dropping the future kills git.
    ///
    /// A mirror that an earlier, killed git has damaged (its locks are left behind) is made anew: it holds nothing
    /// that is not at the source.
    pub async fn fetch(&self) -> Result<(), MirrorError> {
        match self.fetch_once().await {
            Err(MirrorError::Git { damaged: true, stderr, .. }) => {
                tracing::warn!("the mirror {} is made anew: {stderr}", self.path.display());
                self.remove()?;
                self.fetch_once().await
            }
            ended => ended,
        }
    }

    /// Brings one ref of the source here under another name, beside the branches: the head of a pull request, a tag.
    /// Both are full names that git itself would take; everything else is refused.
    pub async fn fetch_ref(&self, from: &str, to: &str) -> Result<(), MirrorError> {
        for name in [from, to] {
            if !super::is_full_name(name) {
                return Err(MirrorError::Ref(crate::config::quoted(name)));
            }
        }
        let mut git = self.reaching().await?;
        git.args(["fetch", "--quiet", "--force", "--no-tags", "--no-recurse-submodules"]);
        git.args(["--no-write-fetch-head", "--", self.url.as_str(), &format!("+{from}:{to}")]);
        self.run(git, "fetch").await
    }

    async fn fetch_once(&self) -> Result<(), MirrorError> {
        let mut git = self.reaching().await?;
        git.args(["fetch", "--quiet", "--prune", "--force", "--no-tags", "--no-recurse-submodules"]);
        git.args(["--no-write-fetch-head", "--", self.url.as_str(), "+refs/heads/*:refs/heads/*"]);
        self.run(git, "fetch").await
    }

    /// git in a mirror that is there, bound to addresses of the source that may be gone to.
    async fn reaching(&self) -> Result<Command, MirrorError> {
        let pinned = self.pinned().await?;
        if Repository::open(&self.path).is_err() {
            self.init().await?;
        }
        let mut git = self.git();
        if let Some(pin) = pinned {
            git.arg("-c").arg(format!("http.curloptResolve={pin}"));
        }
        Ok(git)
    }

    /// Looks at where the source's name leads. Of https the answer binds: git connects to these addresses and resolves
    /// nothing itself, so the name cannot lead elsewhere a moment later.
    async fn pinned(&self) -> Result<Option<String>, MirrorError> {
        let Some(host) = self.url.host() else { return Ok(None) };
        let found = match self.guard.resolve(host.name, host.port).await {
            Ok(found) => found,
            // An alias of the user's own ssh configuration: it leads where the user said.
            Err(GuardError::Resolve { .. } | GuardError::Nowhere(_))
                if host.way == Way::Ssh && self.credentials == Credentials::User =>
            {
                return Ok(None);
            }
            Err(source) => return Err(MirrorError::Address { url: self.url.to_string(), source }),
        };
        let is_name = host.name.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
        Ok((host.way == Way::Https && is_name).then(|| {
            let addresses: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
            format!("{}:{}:{}", host.name, host.port, addresses.join(","))
        }))
    }

    async fn init(&self) -> Result<(), MirrorError> {
        std::fs::create_dir_all(&self.path)
            .map_err(|source| MirrorError::Folder { path: self.path.clone(), source })?;
        let mut git = self.git();
        git.args(["init", "--quiet", "--bare", "--template=", "--", "."]);
        self.run(git, "init").await
    }

    fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.current_dir(&self.path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        git.process_group(0).kill_on_drop(true);
        self.environment(&mut git);
        for (key, value) in SETTINGS {
            git.arg("-c").arg(format!("{key}={value}"));
        }
        if self.credentials == Credentials::None {
            git.args(["-c", "credential.helper=", "-c", "core.askPass="]);
        }
        git
    }

    fn environment(&self, git: &mut Command) {
        git.env_clear();
        let mut keep = vec!["PATH"];
        if self.credentials == Credentials::User {
            keep.extend([
                "HOME",
                "USER",
                "XDG_CONFIG_HOME",
                "SSH_AUTH_SOCK",
                "SSL_CERT_FILE",
                "SSL_CERT_DIR",
            ]);
        } else {
            git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", "/nonexistent");
        }
        for name in keep {
            if let Some(value) = std::env::var_os(name) {
                git.env(name, value);
            }
        }
        let ssh = match self.credentials {
            Credentials::User => "ssh -oBatchMode=yes -oConnectTimeout=15",
            // Public repositories only: no keys of this machine's user.
            Credentials::None => {
                "ssh -F/dev/null -oBatchMode=yes -oConnectTimeout=15 -oIdentitiesOnly=yes -oIdentityFile=/dev/null"
            }
        };
        git.env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "file:https:ssh:git")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_CEILING_DIRECTORIES", self.path.parent().map_or(OsStr::new("/"), Path::as_os_str))
            .env("GIT_DIR", &self.path)
            .env("GIT_SSH_COMMAND", ssh)
            .env("LC_ALL", "C");
    }

    async fn run(&self, mut git: Command, what: &'static str) -> Result<(), MirrorError> {
        let mut child = git.spawn().map_err(MirrorError::Spawn)?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let stderr = child.stderr.take();
        let ending = async {
            let mut said = Vec::new();
            if let Some(stderr) = stderr {
                let mut head = stderr.take(STDERR_BYTES_MAX);
                head.read_to_end(&mut said).await?;
                // Beyond the limit it is read and dropped, so that git does not stop at a full pipe.
                tokio::io::copy(&mut head.into_inner(), &mut tokio::io::sink()).await?;
            }
            Ok::<_, std::io::Error>((child.wait().await?, said))
        };
        let url = || self.url.to_string();
        let ended = tokio::select! {
            ended = tokio::time::timeout(self.limit, ending) => ended,
            () = self.outgrown() => {
                // Its group is killed first, so that nothing is written into what is removed.
                drop(group);
                self.remove()?;
                return Err(MirrorError::Size { what, url: url(), limit: self.size_limit });
            }
        };
        let (status, said) = match ended {
            Ok(ended) => ended.map_err(MirrorError::Spawn)?,
            Err(_) => return Err(MirrorError::Time { what, url: url(), limit: self.limit }),
        };
        group.ended();
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        let stderr = self.without_secrets(&one_line(&said));
        Err(MirrorError::Git { what, url: url(), status, stderr, damaged: is_damaged(&said) })
    }

    /// Ends when the mirror is larger than it may be.
    async fn outgrown(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let path = self.path.clone();
            if crate::hook::blocking(move || size(&path)).await > self.size_limit {
                return;
            }
        }
    }

    fn remove(&self) -> Result<(), MirrorError> {
        std::fs::remove_dir_all(&self.path)
            .map_err(|source| MirrorError::Folder { path: self.path.clone(), source })
    }

    fn without_secrets(&self, said: &str) -> String {
        said.replace(self.url.as_str(), &self.url.to_string())
    }
}

/// Settings that hold whatever a configuration says.
const SETTINGS: [(&str, &str); 23] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("protocol.allow", "never"),
    ("protocol.file.allow", "always"),
    ("protocol.https.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("protocol.git.allow", "always"),
    ("protocol.ext.allow", "never"),
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("gc.autoDetach", "false"),
    ("maintenance.autoDetach", "false"),
    ("transfer.bundleURI", "false"),
    ("transfer.fsckObjects", "true"),
    ("fetch.fsckObjects", "true"),
    // Slips of old tools that many honest repositories carry; nothing here depends on them.
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.missingSpaceBeforeEmail", "ignore"),
    ("fetch.fsck.badEmail", "ignore"),
];

/// The bytes of all files beneath a folder, as far as they can be seen.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        // It has just been removed.
        Err(_) => 0,
    });
    sizes.sum()
}

/// A process group that dies with this value unless it has ended.
struct Group(Option<Pid>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // The helpers that git started (ssh, index-pack) are in its group.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Whether git complains about the mirror's own files. Lines that the other side wrote do not count.
fn is_damaged(said: &str) -> bool {
    let signs = [".lock': File exists", "loose object file", "is corrupt", "index file corrupt"];
    said.lines()
        .filter(|line| !line.trim_start().starts_with("remote:"))
        .any(|line| signs.iter().any(|sign| line.contains(sign)))
}

fn one_line(text: &str) -> String {
    const SHOWN_MAX: usize = 1000;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line: String = lines.join("; ").escape_debug().collect();
    line.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests;
