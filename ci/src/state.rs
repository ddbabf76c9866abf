//! The state folder of a farm on this machine, and `farm.json` in it: how other commands find the farm.
//!
//! ```text
//! <state>/            0700
//!   farm.json         0600: address, tokens, what the gateway watches
//!   client.token      0600: the client token alone, for hooks
//!   lock              held by `up` and `down`, so that two do not interleave
//!   coordinator/      the coordinator's database and blobs
//!   run/              its unix socket; the one folder that worker boxes see
//!   gateway/          the gateway's mirrors
//!   logs/             what the background processes say
//!   pids/             which process is which (see `cli::process`)
//! ```
//!
//! Invariants: tokens never leave `farm.json` but in memory; the file is replaced whole, never written in place.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::Whose;
use crate::cli::shares::Shares;

/// The kernel's limit for the path of a unix socket, its final NUL included.
const SOCKET_PATH_MAX: usize = 108;

/// A farm's state folder, which need not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateDir(PathBuf);

/// What `farm.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FarmFile {
    /// Tells the boxes of several farms on one engine apart.
    pub(crate) farm: String,
    /// Where the coordinator listens for TCP: `127.0.0.1:7077`.
    pub(crate) listen: String,
    /// What clients show that may do everything.
    pub(crate) client_token: String,
    /// What those show who only look; absent until a coordinator that knows roles was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) viewer_token: Option<String>,
    /// What those show who have runs made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) developer_token: Option<String>,
    /// What workers show.
    pub(crate) join_token: String,
    /// What the gateway polls: `NAME=URL[#branch]`.
    #[serde(default)]
    pub(crate) watch: Vec<String>,
    /// Whose credentials the gateway's fetches use.
    #[serde(default)]
    pub(crate) credentials: Whose,
    /// How projects share the lanes.
    #[serde(default)]
    pub(crate) shares: Shares,
    /// Where runs are kept: `postgres://…`; absent for SQLite in the state folder. May hold a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// How long runs keep their tests and logs; 0 for ever.
    #[serde(default = "crate::cli::keep_days_default")]
    pub(crate) keep_runs_days: u32,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("there is no home folder to keep the farm's state in: neither XDG_STATE_HOME nor HOME is set")]
    NoHome,
    #[error("there is no farm in {0}")]
    NoFarm(PathBuf),
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a farm's file")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} can be read by others (mode {mode:o})")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the path of the coordinator's socket is longer than the kernel takes ({SOCKET_PATH_MAX}): {0}")]
    SocketPathTooLong(PathBuf),
    #[error("another `andon up` or `andon down` works on {0}")]
    Busy(PathBuf),
}

impl StateDir {
    /// The folder that was asked for, else the one that the environment gives (already read, so that it can be
    /// tested): `XDG_STATE_HOME`, then `HOME`.
    pub(crate) fn choose(
        asked: Option<&Path>,
        xdg_state_home: Option<PathBuf>,
        home: Option<PathBuf>,
    ) -> Result<Self, StateError> {
        if let Some(asked) = asked {
            let absolute = std::path::absolute(asked).map_err(io_error("resolve", asked))?;
            return Ok(Self(absolute));
        }
        // The XDG specification says that a relative path is to be ignored.
        let xdg = xdg_state_home.filter(|path| path.is_absolute());
        let base = xdg
            .or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local").join("state")));
        base.map(|base| Self(base.join("andon"))).ok_or(StateError::NoHome)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder and those in it.
    pub(crate) fn create(&self) -> Result<(), StateError> {
        for folder in
            [self.0.clone(), self.coordinator(), self.run(), self.gateway(), self.logs(), self.pids()]
        {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(io_error("make", &folder))?;
        }
        Ok(())
    }

    /// The coordinator's database and blobs.
    pub(crate) fn coordinator(&self) -> PathBuf {
        self.0.join("coordinator")
    }

    /// Holds the socket, and nothing else: worker boxes mount it.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The gateway's mirrors.
    pub(crate) fn gateway(&self) -> PathBuf {
        self.0.join("gateway")
    }

    /// Output of the background processes.
    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// Which process is which.
    pub(crate) fn pids(&self) -> PathBuf {
        self.0.join("pids")
    }

    /// The coordinator's unix socket.
    pub(crate) fn socket(&self) -> Result<PathBuf, StateError> {
        let path = self.run().join("coordinator.sock");
        if path.as_os_str().len() >= SOCKET_PATH_MAX {
            return Err(StateError::SocketPathTooLong(path));
        }
        Ok(path)
    }

    /// Held until dropped, so that `up` and `down` do not interleave.
    pub(crate) fn lock(&self) -> Result<fs::File, StateError> {
        let path = self.0.join("lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::Busy(self.0.clone())),
            Err(fs::TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }

    /// Reads `farm.json`.
    pub(crate) fn farm(&self) -> Result<FarmFile, StateError> {
        let path = self.farm_file();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(StateError::NoFarm(self.0.clone()));
            }
            Err(source) => return Err(io_error("read", &path)(source)),
        };
        let mode = fs::metadata(&path).map_err(io_error("read", &path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::Exposed { path, mode });
        }
        serde_json::from_slice(&text).map_err(|source| StateError::Damaged { path, source })
    }

    /// Replaces `farm.json`, and the file that hooks read.
    pub(crate) fn write_farm(&self, farm: &FarmFile) -> Result<(), StateError> {
        let mut text = serde_json::to_vec_pretty(farm).expect("strings and lists are valid JSON");
        text.push(b'\n');
        write_private(&self.client_token_file(), farm.client_token.as_bytes())?;
        write_private(&self.farm_file(), &text)
    }

    /// The client token alone: what a hook reads, so that it outlives a farm made anew in the same folder.
    pub(crate) fn client_token_file(&self) -> PathBuf {
        self.0.join("client.token")
    }

    /// Removes the folder with all that is in it. A folder that does not look like a farm's is left alone.
    pub(crate) fn purge(&self) -> Result<(), StateError> {
        if !self.0.join("lock").is_file() || !self.pids().is_dir() {
            return Err(StateError::NoFarm(self.0.clone()));
        }
        fs::remove_dir_all(&self.0).map_err(io_error("remove", &self.0))
    }

    fn farm_file(&self) -> PathBuf {
        self.0.join("farm.json")
    }
}

/// Replaces a file whole, readable by its owner alone.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    // A leftover of an interrupted write could have another mode.
    match fs::remove_file(&fresh) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("replace", &fresh)(source));
        }
        _ => {}
    }
    let write = || {
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(io_error("write", path))
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError + use<> {
    let path = path.to_owned();
    move |source| StateError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn farm() -> FarmFile {
        FarmFile {
            farm: "a1b2c3d4".to_owned(),
            listen: "127.0.0.1:7077".to_owned(),
            client_token: "c".repeat(64),
            viewer_token: None,
            developer_token: Some("d".repeat(64)),
            join_token: "j".repeat(64),
            watch: vec![],
            credentials: Whose::None,
            shares: Shares::default(),
            store: None,
            keep_runs_days: 90,
        }
    }

    fn dir() -> (tempfile::TempDir, StateDir) {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::choose(Some(&temp.path().join("state")), None, None).unwrap();
        (temp, state)
    }

    #[test]
    fn the_folder_asked_for_wins_then_xdg_then_home() {
        let choose = |asked: Option<&str>, xdg: Option<&str>, home: Option<&str>| {
            StateDir::choose(asked.map(Path::new), xdg.map(PathBuf::from), home.map(PathBuf::from))
                .map(|state| state.0)
                .ok()
        };
        assert_eq!(choose(Some("/a"), Some("/x"), Some("/h")), Some("/a".into()));
        assert_eq!(choose(None, Some("/x"), Some("/h")), Some("/x/andon".into()));
        assert_eq!(choose(None, Some("relative"), Some("/h")), Some("/h/.local/state/andon".into()));
        assert_eq!(choose(None, None, None), None);
        assert!(choose(Some("rel"), None, None).unwrap().is_absolute());
    }

    #[test]
    fn the_farm_file_is_for_its_owner_alone() {
        let (_temp, state) = dir();
        state.create().unwrap();
        state.write_farm(&farm()).unwrap();
        state.write_farm(&farm()).unwrap();
        let mode = fs::metadata(state.farm_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(state.farm().unwrap(), farm());
        fs::set_permissions(state.farm_file(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(state.farm(), Err(StateError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn a_missing_and_a_damaged_farm_are_told_apart() {
        let (_temp, state) = dir();
        assert!(matches!(state.farm(), Err(StateError::NoFarm(_))));
        state.create().unwrap();
        state.write_farm(&farm()).unwrap();
        fs::write(state.farm_file(), b"{").unwrap();
        assert!(matches!(state.farm(), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn two_ups_do_not_interleave() {
        let (_temp, state) = dir();
        state.create().unwrap();
        let held = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(StateError::Busy(_))));
        drop(held);
        state.lock().unwrap();
    }

    #[test]
    fn purge_removes_a_farm_and_nothing_else() {
        let (temp, state) = dir();
        let other = StateDir(temp.path().to_owned());
        assert!(matches!(other.purge(), Err(StateError::NoFarm(_))));
        state.create().unwrap();
        drop(state.lock().unwrap());
        state.purge().unwrap();
        assert!(!state.path().exists());
    }

    #[test]
    fn a_socket_path_that_the_kernel_refuses_is_refused_first() {
        let state = StateDir(PathBuf::from(format!("/{}", "x".repeat(100))));
        assert!(matches!(state.socket(), Err(StateError::SocketPathTooLong(_))));
    }
}
