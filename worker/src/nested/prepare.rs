//! Makes the surroundings of the daemon ready: folders, control groups, configuration files; no leftovers.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use thiserror::Error;

use super::cgroups::{self, CgroupError};
use super::config::NestedConfig;
use super::images::ImageStore;
use super::{bridges, leftovers, mounts, orphans, unsynced};

/// Programs that must be on the search path.
const PROGRAMS: [&str; 7] =
    ["containerd", "containerd-shim-runc-v2", "dockerd", "ip", "nsenter", "runc", "setpriv"];

/// Longest path of a Unix socket (unix(7)), without its final zero.
const SOCKET_PATH_MAX: usize = 107;

/// Routing between the networks of this namespace.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

#[derive(Debug, Error)]
pub(super) enum PrepareError {
    #[error(
        "{names} not found on the search path: install Docker Engine (Debian: docker.io, containerd, runc, util-linux)"
    )]
    Programs { names: String },
    #[error(
        "the path of {path} is longer than a socket's may be ({SOCKET_PATH_MAX} bytes): choose a shorter run folder"
    )]
    SocketPath { path: PathBuf },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{}", chain(.0))]
    Cgroups(#[from] CgroupError),
}

/// The reason travels as text (it is an input of the state machine): its causes must be in it.
fn chain(error: &CgroupError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// What the daemon starts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataRoot {
    /// The one that is there, or an empty one.
    Kept,
    /// Another, with the images that are kept beside it.
    Renewed,
}

/// Blocks for some milliseconds. Safe to repeat; no process of the daemon may run. `root_was_plain`: what is mounted at the
/// data root was mounted by the daemon. Answers with what is to be deleted, whenever there is time.
pub(super) fn prepare(
    config: &NestedConfig,
    root: DataRoot,
    root_was_plain: bool,
) -> Result<Vec<PathBuf>, PrepareError> {
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let missing = missing_programs(&PROGRAMS, &search_path);
    if !missing.is_empty() {
        return Err(PrepareError::Programs { names: missing.join(", ") });
    }
    for socket in [config.docker_socket(), config.containerd_socket().with_extension("sock.ttrpc")] {
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(PrepareError::SocketPath { path: socket });
        }
    }
    cgroups::prepare()?;
    orphans::kill(&config.containerd_socket());
    let direct = config.direct_folder();
    leftovers::end(&direct).map_err(failed(&direct))?;
    let doomed = prepare_images(config, root, root_was_plain, &search_path)?;
    for folder in [&config.data_root, &config.run_dir] {
        fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    remove_stale(config)?;
    write(&config.containerd_config(), &config.containerd_file())?;
    if !config.fsync
        && let Err(why) = unsynced::install(&config.filter())
    {
        tracing::warn!(
            why,
            "services sync to the disk, and start slower: no filter of system calls can be loaded"
        );
        remove(&config.filter())?;
    }
    // dockerd gets its configuration through a pipe when it may read it.
    let pipe = config.docker_config();
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .map_err(|error| failed(&pipe)(error.into()))?;
    if config.own_network {
        write(Path::new(IP_FORWARD), "0")?;
    }
    Ok(doomed)
}

/// Takes the images into safety, and makes another data root of them where the one that is there is given up.
fn prepare_images(
    config: &NestedConfig,
    root: DataRoot,
    root_was_plain: bool,
    search_path: &OsStr,
) -> Result<Vec<PathBuf>, PrepareError> {
    if !config.data_root.exists() {
        return Ok(Vec::new());
    }
    if root_was_plain {
        // A killed daemon leaves it mounted on itself, and nothing could be moved out of it.
        let unmounted =
            mounts::remove_beneath(&config.data_root).and_then(|_| mounts::remove_at(&config.data_root));
        unmounted.map_err(failed(&config.data_root))?;
    }
    let dockerd =
        std::env::split_paths(search_path).map(|dir| dir.join("dockerd")).find(|path| path.is_file());
    let store = ImageStore::new(&config.data_root, dockerd.as_deref());
    // A worker without this works; what it lacks is made up for by loading its images again.
    match store.seal() {
        Ok(Some(catalog)) => tracing::debug!(key = catalog.key, images = catalog.images, "images are sealed"),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the nested daemon's images are not sealed"),
    }
    if root == DataRoot::Renewed {
        let renewed = store.renew().map_err(failed(&config.data_root))?;
        let (aside, images) = (renewed.aside.display(), renewed.images);
        tracing::warn!(%aside, images, "the nested daemon did not come up on its data root: here is another");
        forget_containers(config);
    }
    store.discard().or_else(|error| {
        tracing::warn!(%error, "nothing is discarded of the nested daemon's images");
        Ok(Vec::new())
    })
}

/// A daemon on another data root does not know what the one before had up: it could not take it down.
fn forget_containers(config: &NestedConfig) {
    let unmounted = mounts::remove_beneath(&config.run_dir);
    if let Err(error) = unmounted {
        tracing::warn!(%error, "a mount of a container stays");
    }
    for state in ["containerd", "exec"] {
        if let Err(error) = fs::remove_dir_all(config.run_dir.join(state))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, state, "the state of containers stays");
        }
    }
    if config.own_network
        && let Err(error) = bridges::remove_all()
    {
        tracing::warn!(%error, "networks of the data root before stay");
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PrepareError + '_ {
    move |source| PrepareError::Write { path: path.to_owned(), source }
}

fn write(path: &Path, text: &str) -> Result<(), PrepareError> {
    fs::write(path, text).map_err(failed(path))
}

/// A killed daemon leaves its pid file, and a new one with that id by chance would make dockerd refuse to start; sockets of
/// the dead would be taken for an answer. The state of containers stays: the new daemon ends them by it.
fn remove_stale(config: &NestedConfig) -> Result<(), PrepareError> {
    let containerd = config.containerd_socket();
    let ttrpc = containerd.with_extension("sock.ttrpc");
    let pid = config.run_dir.join("docker.pid");
    let stale = [pid, config.docker_config(), config.docker_socket(), config.filter(), containerd, ttrpc];
    stale.iter().try_for_each(|path| remove(path))
}

fn remove(path: &Path) -> Result<(), PrepareError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn missing_programs<'a>(programs: &[&'a str], search_path: &OsStr) -> Vec<&'a str> {
    let is_there = |program: &str| std::env::split_paths(search_path).any(|dir| dir.join(program).is_file());
    programs.iter().copied().filter(|program| !is_there(program)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path) -> NestedConfig {
        NestedConfig {
            data_root: folder.join("data"),
            run_dir: folder.join("run"),
            own_network: false,
            fsync: true,
            direct: true,
        }
    }

    #[test]
    fn pid_file_and_sockets_of_a_killed_daemon_go_and_the_state_of_its_containers_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = folder.path().join("run");
        fs::create_dir_all(run.join("containerd")).expect("created");
        for name in ["docker.pid", "daemon.json", "docker.sock", "containerd.sock", "containerd.sock.ttrpc"] {
            fs::write(run.join(name), "1").expect("written");
        }
        remove_stale(&config(folder.path())).expect("removed");
        let left: Vec<_> =
            fs::read_dir(&run).expect("read").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["containerd"]);
    }

    #[test]
    fn all_missing_programs_are_named_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("runc"), "").expect("written");
        let missing = missing_programs(&["dockerd", "runc", "containerd"], folder.path().as_os_str());
        assert_eq!(missing, ["dockerd", "containerd"]);
    }
}
