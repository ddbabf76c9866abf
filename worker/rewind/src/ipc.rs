//! Objects of System V in the processes' own namespaces: shared memory, semaphores, queues.
//!
//! They belong to no process, so nothing that is held of one shows them. Shared memory that is attached is kept ([`crate::segments`]); the contents of
//! others are not: one in the baseline forbids it, and one that was made since is a difference. A file of `/proc/sysvipc` shows for ever the namespace that it was opened in, so each is entered once. The
//! namespace of our own process is left out: there others may have theirs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::trace::Pid;

const KINDS: [&str; 3] = ["shm", "sem", "msg"];

// Columns of `/proc/sysvipc/shm`: key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap.
const SHM_ID: usize = 1;
const SHM_ATTACHED: usize = 6;
/// Who used it last, how many do, when they did, and where its pages are.
const SHM_USES: [usize; 6] = [5, SHM_ATTACHED, 11, 12, 14, 15];

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

    /// Each object that there is.
    pub(crate) fn objects(&self) -> io::Result<Vec<Object>> {
        let mut objects = Vec::new();
        for (pid, kind, file) in &self.0 {
            let mut file = file;
            let mut text = String::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_string(&mut text)?;
            objects.extend(text.lines().skip(1).map(|line| Object::parse(*pid, kind, line)));
        }
        Ok(objects)
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    /// A process that can see it.
    pub(crate) pid: Pid,
    /// Its line without what every use of it changes.
    pub(crate) shown: String,
    /// Of shared memory: its number.
    pub(crate) memory: Option<u64>,
    /// Of shared memory: how often it is attached.
    pub(crate) attached: Option<u64>,
}

impl Object {
    fn parse(pid: Pid, kind: &str, line: &str) -> Self {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_memory = kind == "shm";
        let kept = words.iter().enumerate().filter(|(at, _)| !is_memory || !SHM_USES.contains(at));
        let shown = kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
        let number = |at: usize| words.get(at).filter(|_| is_memory)?.parse().ok();
        Self { pid, shown: format!("{kind} {shown}"), memory: number(SHM_ID), attached: number(SHM_ATTACHED) }
    }
}

fn enter(namespace: &File) -> io::Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::InterProcessCommunication))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_of_shared_memory_are_told_from_what_it_is() {
        let parse = |line| Object::parse(7, "shm", line);
        let one = parse("10010952 4 600 56 82 82 6 101 104 101 104 1795321368 0 1795321368 4096 0");
        let used = parse("10010952 4 600 56 82 99 7 101 104 101 104 1795321399 1795321398 1795321368 8192 0");
        assert_eq!((one.memory, one.attached, used.attached), (Some(4), Some(6), Some(7)));
        assert_eq!(one.shown, used.shown);
        let another = parse("10010952 4 666 56 82 82 6 101 104 101 104 1795321368 0 1795321368 4096 0");
        assert_ne!(one.shown, another.shown);
        assert_eq!(Object::parse(7, "sem", "1 4 600 2").shown, "sem 1 4 600 2");
        assert_eq!(Object::parse(7, "sem", "1 4 600 2").memory, None);
    }
}
