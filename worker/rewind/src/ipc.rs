//! Objects of System V in the processes' own namespaces: shared memory, semaphores, queues.
//!
//! They belong to no process, so nothing that is held of one shows them. Their contents are not kept: one in the baseline forbids it, and one that
//! was made since is a difference. A file of `/proc/sysvipc` shows for ever the namespace that it was opened in, so each is entered once. The
//! namespace of our own process is left out: there others may have theirs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::trace::Pid;

const KINDS: [&str; 3] = ["shm", "sem", "msg"];

/// The lists of the namespaces.
#[derive(Debug)]
pub(crate) struct Lists(Vec<(Pid, &'static str, File)>);

impl Lists {
    /// Of these processes. For a moment the calling thread is in their namespaces.
    pub(crate) fn open(pids: impl Iterator<Item = Pid>) -> io::Result<Self> {
        let own = "/proc/thread-self/ns/ipc";
        let (own_name, own) = (fs::read_link(own)?, File::open(own)?);
        let mut namespaces = BTreeMap::new();
        for pid in pids {
            let path = format!("/proc/{pid}/ns/ipc");
            namespaces.entry(fs::read_link(&path)?).or_insert((pid, path));
        }
        namespaces.remove(&own_name);
        let mut lists = Vec::new();
        for (pid, path) in namespaces.into_values() {
            enter(&File::open(path)?)?;
            let opened =
                KINDS.iter().map(|kind| Ok((pid, *kind, File::open(format!("/proc/sysvipc/{kind}"))?)));
            let opened: io::Result<Vec<_>> = opened.collect();
            enter(&own)?;
            lists.extend(opened?);
        }
        Ok(Self(lists))
    }

    /// A line for each object that there is, with a process that can see it.
    pub(crate) fn objects(&self) -> io::Result<Vec<(Pid, String)>> {
        let mut objects = Vec::new();
        for (pid, kind, file) in &self.0 {
            let mut file = file;
            let mut text = String::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_string(&mut text)?;
            let of = |line: &str| {
                (*pid, format!("{kind} {}", line.split_whitespace().collect::<Vec<_>>().join(" ")))
            };
            objects.extend(text.lines().skip(1).map(of));
        }
        Ok(objects)
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::InterProcessCommunication))?;
    Ok(())
}
