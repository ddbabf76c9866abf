//! What a test wants to have mounted: paths, volumes, file systems in memory. Docker's two forms (`Binds`, `Mounts`) become one.
//!
//! [`asked`](Asked) is pure; [`Reach`] knows the box's source copy. Invariant: a path of the worker is opened
//! beneath that copy, and what was opened is mounted where no test can write, for the daemon: no link that a test moves afterwards
//! leads anywhere else.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::UnmountFlags;
use serde_json::{Value, json};

use super::create::{not_offered, object, says_nothing, text};
use super::refusal::Refusal;

/// Where the lane's own Docker socket is in a box.
pub(crate) const SOCKET_IN_BOX: &str = "/andon/docker.sock";
/// Paths that programs mount to reach Docker.
const SOCKETS: [&str; 3] = [SOCKET_IN_BOX, "/var/run/docker.sock", "/run/docker.sock"];

/// One mount, as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// A path as the test's box sees it.
    Path { source: String, target: String, read_only: bool },
    /// A volume; an empty name for one without.
    Volume { name: String, target: String, read_only: bool, no_copy: bool },
    /// Docker's own form, as it came.
    Tmpfs(Value),
}

/// `SOURCE:TARGET[:OPTIONS]`.
pub(super) fn bind(bind: &str) -> Result<Asked, Refusal> {
    let mut parts = bind.split(':');
    let (source, target, options) = (parts.next(), parts.next(), parts.next());
    let (Some(source), Some(target), None) = (source, target, parts.next()) else {
        return Err(Refusal::bad(format!("bind {bind:?} is not SOURCE:TARGET or SOURCE:TARGET:OPTIONS")));
    };
    let (mut read_only, mut no_copy) = (false, false);
    for option in options.unwrap_or_default().split(',') {
        match option {
            "" | "rw" | "z" | "Z" => {}
            "ro" => read_only = true,
            "nocopy" => no_copy = true,
            other => return Err(not_offered("Binds option", &json!(other))),
        }
    }
    let (source, target) = (source.to_owned(), target.to_owned());
    if source.starts_with('/') {
        return Ok(Asked::Path { source, target, read_only });
    }
    Ok(Asked::Volume { name: super::route::name(&source)?, target, read_only, no_copy })
}

/// One entry of `Mounts`.
pub(super) fn mount(mount: Value) -> Result<Asked, Refusal> {
    let mount = object("Mounts", mount)?;
    let field = |key: &str| mount.get(key).map_or(Ok(String::new()), |value| text(key, value));
    let (kind, source, target) = (field("Type")?, field("Source")?, field("Target")?);
    let read_only = mount.get("ReadOnly") == Some(&Value::Bool(true));
    let mut no_copy = false;
    for (key, value) in &mount {
        match key.as_str() {
            "Type" | "Source" | "Target" | "ReadOnly" | "Consistency" => {}
            "TmpfsOptions" if kind == "tmpfs" => {}
            "BindOptions" => {
                for (key, value) in object(key, value.clone())? {
                    let private = matches!(value.as_str(), Some("private" | "rprivate"));
                    let harmless = key == "CreateMountpoint" || (key == "Propagation" && private);
                    if !harmless && !says_nothing(&value) {
                        return Err(not_offered(&key, &value));
                    }
                }
            }
            "VolumeOptions" => {
                for (key, value) in object(key, value.clone())? {
                    match key.as_str() {
                        "NoCopy" => no_copy = value == Value::Bool(true),
                        // Names no driver but the one there is.
                        "DriverConfig" if value.get("Options").is_none_or(says_nothing) => {}
                        "Labels" => {}
                        _ if says_nothing(&value) => {}
                        _ => return Err(not_offered(&key, &value)),
                    }
                }
            }
            _ if says_nothing(value) => {}
            _ => return Err(not_offered(key, value)),
        }
    }
    match kind.as_str() {
        "bind" => Ok(Asked::Path { source, target, read_only }),
        "volume" if source.is_empty() => Ok(Asked::Volume { name: source, target, read_only, no_copy }),
        "volume" => Ok(Asked::Volume { name: super::route::name(&source)?, target, read_only, no_copy }),
        "tmpfs" => Ok(Asked::Tmpfs(Value::Object(mount))),
        other => Err(not_offered("mount type", &json!(other))),
    }
}

/// What of the worker's files a test's containers may have.
#[derive(Debug)]
pub(super) struct Reach {
    /// Where the source is in the box.
    pub(super) workdir: String,
    /// Where that is on the worker.
    pub(super) source: PathBuf,
    /// The lane's own socket on the worker.
    pub(super) socket: PathBuf,
    /// Where what is handed to the daemon is mounted; before each name. Nobody but the agent can write there.
    pub(super) mounts: PathBuf,
}

/// A path that the daemon may mount.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) source: String,
    /// To be kept for as long as a container may be started with it.
    pub(super) mount: Option<Mounted>,
}

/// A file or folder mounted where the daemon finds it, until this is dropped.
#[derive(Debug)]
pub(super) struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// Removes a mount, and the file or folder that it was on.
fn unmount(place: &Path) {
    // What is not mounted is not an error: it may have failed half-way.
    let _ = rustix::mount::unmount(place, UnmountFlags::DETACH);
    let removed = std::fs::remove_dir(place).or_else(|_| std::fs::remove_file(place));
    if let Err(error) = removed {
        tracing::warn!(%error, place = %place.display(), "removing a mount of a test's container");
    }
}

/// Removes the mounts that an earlier life left in a folder. Before anything in it is deleted: it would be what is mounted.
pub(super) fn unmount_all(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        unmount(&entry.path());
    }
}

static MOUNTS: AtomicU64 = AtomicU64::new(0);

impl Reach {
    /// Has a path of the box where the daemon can mount it. What lies outside of the source copy is refused.
    pub(super) fn open(&self, path: &str) -> Result<Reached, Refusal> {
        if SOCKETS.contains(&path) {
            return Ok(Reached { source: self.socket.to_string_lossy().into_owned(), mount: None });
        }
        let file = self.find(path)?;
        let failed =
            |what: &str, error: std::io::Error| Refusal::broken(format!("cannot {what} {path}: {error}"));
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        let kind = std::fs::metadata(&open).map_err(|error| failed("look at", error))?;
        let place =
            PathBuf::from(format!("{}-{}", self.mounts.display(), MOUNTS.fetch_add(1, Ordering::Relaxed)));
        let made = if kind.is_dir() { std::fs::create_dir(&place) } else { std::fs::write(&place, "") };
        made.map_err(|error| failed("make a place for", error))?;
        let mount = Mounted(place);
        rustix::mount::mount_bind(&open, &mount.0).map_err(|error| failed("mount", error.into()))?;
        Ok(Reached { source: mount.0.to_string_lossy().into_owned(), mount: Some(mount) })
    }

    /// Opens a path beneath the source copy.
    fn find(&self, path: &str) -> Result<OwnedFd, Refusal> {
        let Ok(inside) = Path::new(path).strip_prefix(&self.workdir) else {
            return Err(Refusal::forbidden(format!(
                "bind of {path:?} is refused: a test's container may mount what lies beneath {}, volumes, and {SOCKET_IN_BOX}",
                self.workdir
            )));
        };
        let root_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |error: rustix::io::Errno| match error {
            rustix::io::Errno::NOENT => Refusal::bad(format!("bind source path does not exist: {path}")),
            rustix::io::Errno::XDEV | rustix::io::Errno::LOOP => {
                Refusal::forbidden(format!("bind of {path:?} is refused: it leads out of {}", self.workdir))
            }
            other => Refusal::bad(format!("bind source path {path}: {other}")),
        };
        let root = rustix::fs::open(&self.source, root_flags, Mode::empty()).map_err(failed)?;
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(root, inside, flags, Mode::empty(), resolve).map_err(failed)
    }
}

/// Removes a socket's file that an earlier life left.
pub(super) fn unlink(path: &Path) {
    let _ = rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(source: &str, target: &str, read_only: bool) -> Asked {
        Asked::Path { source: source.into(), target: target.into(), read_only }
    }

    #[test]
    fn both_forms_mean_the_same() {
        assert_eq!(bind("/src/a:/a:ro").unwrap(), path("/src/a", "/a", true));
        let long = json!({ "Type": "bind", "Source": "/src/a", "Target": "/a", "ReadOnly": true });
        assert_eq!(mount(long).unwrap(), path("/src/a", "/a", true));
        let volume =
            |no_copy| Asked::Volume { name: "data".into(), target: "/d".into(), read_only: false, no_copy };
        assert_eq!(bind("data:/d:nocopy").unwrap(), volume(true));
        let long =
            json!({ "Type": "volume", "Source": "data", "Target": "/d", "VolumeOptions": { "Labels": {} } });
        assert_eq!(mount(long).unwrap(), volume(false));
    }

    #[test]
    fn drivers_propagation_and_kinds_that_reach_further_are_refused() {
        for bad in ["/src:/a:rshared", "/a", "/a:/b:ro:x", "..:/a"] {
            assert!(bind(bad).is_err(), "{bad}");
        }
        for bad in [
            json!({ "Type": "bind", "Source": "/src", "Target": "/a", "BindOptions": { "Propagation": "rshared" } }),
            json!({ "Type": "volume", "Target": "/a", "VolumeOptions": {
                "DriverConfig": { "Name": "local", "Options": { "type": "none", "o": "bind", "device": "/" } } } }),
            json!({ "Type": "npipe", "Source": "x", "Target": "/a" }),
            json!({ "Type": "cluster", "Source": "x", "Target": "/a" }),
        ] {
            assert!(mount(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_lies_in_the_source_copy_is_reached_whatever_links_say() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("conf")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../../..", dir.path().join("up")).unwrap();
        std::os::unix::fs::symlink("conf", dir.path().join("in")).unwrap();
        let reach = Reach {
            workdir: "/src".into(),
            source: dir.path().to_owned(),
            socket: "/run/own.sock".into(),
            mounts: dir.path().join("m"),
        };
        let seen =
            |file: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        for fine in ["/src", "/src/conf", "/src/in"] {
            assert!(seen(&reach.find(fine).unwrap()).starts_with(dir.path()), "{fine}");
        }
        for bad in
            ["/", "/etc", "/srcx", "/src/out", "/src/up", "/src/../etc", "/src/out/passwd", "/proc/1/root"]
        {
            let refusal = reach.open(bad).unwrap_err();
            assert_eq!(refusal.status.as_u16(), 403, "{bad}: {refusal}");
        }
        assert!(reach.open("/src/absent").unwrap_err().message.contains("does not exist"));
        assert_eq!(reach.open("/var/run/docker.sock").unwrap().source, "/run/own.sock");
        // The open file stays what it was.
        let file = reach.find("/src/conf").unwrap();
        std::fs::rename(dir.path().join("conf"), dir.path().join("moved")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("conf")).unwrap();
        assert_eq!(seen(&file), dir.path().join("moved"));
    }
}
