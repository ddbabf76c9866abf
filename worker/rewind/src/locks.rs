//! Part of step 6: a process's POSIX locks on files.
//!
//! They belong to the process and the inode, not to a descriptor, and closing *any* descriptor of the file ends them: a server that drops a table
//! loses its lock, and so does one of which we close a descriptor. A lock of the baseline is taken again through a descriptor of the baseline that leads
//! to its inode; where none does, its loss is a difference. New locks go with the new descriptors; one on a file that the baseline has
//! open is a difference. They are read from `fdinfo`: reading `/proc/locks` waits for all processors (about 10 ms). Locks of descriptions (`flock`, `OFD`) are in `identity`: compared, not put back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use crate::arch::Call;
use crate::descriptors::Descriptors;
use crate::errand;
use crate::identity::Difference;
use crate::inject::Caller;
use crate::memory::Access;
use crate::trace::Pid;

/// Of a `struct flock`.
const REQUEST_BYTES: usize = 32;
/// So many calls have room in one errand.
const AT_ONCE: usize = 100;

/// The locks that the descriptors `numbers` hold, as lines of `/proc/locks`. A descriptor that is not there holds none.
pub(crate) fn text(pid: Pid, numbers: impl Iterator<Item = u32>) -> String {
    let mut text = String::new();
    for number in numbers {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        for lock in info.lines().filter_map(|line| line.strip_prefix("lock:")) {
            text.push_str(lock.trim());
            text.push('\n');
        }
    }
    text
}

/// The lines that are a process's POSIX locks, without their numbers.
pub(crate) fn of(pid: Pid, locks: &str) -> BTreeSet<String> {
    let pid = pid.to_string();
    let lines = locks.lines().filter_map(|line| line.split_once(": ")).map(|(_, lock)| lock.trim());
    let own = lines.filter(|lock| {
        let mut words = lock.split_whitespace();
        words.next() == Some("POSIX") && words.nth(2) == Some(&pid)
    });
    own.map(str::to_owned).collect()
}

fn word(lock: &str, which: usize) -> &str {
    lock.split_whitespace().nth(which).unwrap_or_default()
}

/// The locks of the baseline, each with a descriptor through which it can be taken again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Locks {
    all: BTreeMap<String, Option<u32>>,
    inodes: BTreeSet<String>,
}

/// `struct flock` as fcntl(2) reads it.
fn request(lock: &str) -> Option<[u8; REQUEST_BYTES]> {
    let kind = match word(lock, 2) {
        "WRITE" => libc::F_WRLCK,
        "READ" => libc::F_RDLCK,
        _ => return None,
    };
    let start: u64 = word(lock, 5).parse().ok()?;
    let length = match word(lock, 6) {
        "EOF" => 0,
        end => end.parse::<u64>().ok()? - start + 1,
    };
    let mut request = [0; REQUEST_BYTES];
    request[..2].copy_from_slice(&i16::try_from(kind).ok()?.to_ne_bytes());
    request[8..16].copy_from_slice(&start.to_ne_bytes());
    request[16..24].copy_from_slice(&length.to_ne_bytes());
    Some(request)
}

impl Locks {
    pub(crate) fn take(pid: Pid, locks: &str, descriptors: &Descriptors) -> io::Result<Self> {
        let mut by_inode = BTreeMap::new();
        for (number, descriptor) in &descriptors.all {
            by_inode.insert(descriptor.inode()?, *number);
        }
        let own = of(pid, locks).into_iter();
        let all = own
            .map(|lock| (by_inode.get(word(&lock, 4)).copied(), lock))
            .map(|(number, lock)| (lock, number));
        Ok(Self { all: all.collect(), inodes: by_inode.into_keys().collect() })
    }

    fn missing(&self, now: &BTreeSet<String>) -> impl Iterator<Item = (&String, &Option<u32>)> {
        self.all.iter().filter(|(lock, _)| !now.contains(*lock))
    }

    /// What cannot be put back.
    pub(crate) fn compare(&self, pid: Pid, locks: &str, differences: &mut Vec<Difference>) {
        let now = of(pid, locks);
        for (lock, _) in
            self.missing(&now).filter(|(lock, number)| number.is_none() || request(lock).is_none())
        {
            differences.push(Difference::Property {
                pid,
                what: "locks",
                was: lock.clone(),
                is: "not held".to_owned(),
            });
        }
        let new =
            now.iter().filter(|lock| !self.all.contains_key(*lock) && self.inodes.contains(word(lock, 4)));
        for lock in new {
            differences.push(Difference::Property {
                pid,
                what: "locks",
                was: "not held".to_owned(),
                is: lock.clone(),
            });
        }
    }

    /// Takes all of them again, for which it need not be known which are missing: one that is held is the same afterwards. The descriptors have been put
    /// back. `can_trap` is for the [errand](errand::run).
    pub(crate) fn restore(&self, caller: &mut Caller, access: &Access, can_trap: bool) -> io::Result<()> {
        let reached = self.all.iter().filter_map(|(lock, number)| Some(((*number)?, request(lock)?)));
        let reached: Vec<_> = reached.collect();
        for part in reached.chunks(AT_ONCE) {
            let requests: Vec<u8> = part.iter().flat_map(|(_, request)| *request).collect();
            errand::run(caller, access, can_trap, &requests, |at| {
                let request_at = (at..).step_by(REQUEST_BYTES);
                let set = u64::from(libc::F_SETLK.unsigned_abs());
                let take = |((number, _), at): (&(u32, _), u64)| {
                    Call::new(libc::SYS_fcntl, [u64::from(*number), set, at])
                };
                part.iter().zip(request_at).map(take).collect()
            })?;
        }
        Ok(())
    }

    /// Whether any cannot be taken again: it is there, or lost.
    pub(crate) fn some_are_out_of_reach(&self) -> bool {
        self.all.iter().any(|(lock, number)| number.is_none() || request(lock).is_none())
    }

    /// Whether exactly the locks of the baseline are held.
    pub(crate) fn held(&self, pid: Pid, locks: &str) -> bool {
        of(pid, locks).iter().eq(self.all.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_posix_locks_of_the_process_are_its() {
        let locks = "1: POSIX  ADVISORY  WRITE 27 07:01:133 0 EOF\n2: FLOCK  ADVISORY  WRITE 27 07:01:134 0 EOF\n\
                     3: POSIX  ADVISORY  READ 28 07:01:133 0 9\n";
        let own = of(27, locks);
        assert_eq!(own.iter().collect::<Vec<_>>(), ["POSIX  ADVISORY  WRITE 27 07:01:133 0 EOF"]);
        let request = request("POSIX  ADVISORY  READ 28 07:01:133 4 9").unwrap();
        assert_eq!((request[8], request[16]), (4, 6));
    }
}
