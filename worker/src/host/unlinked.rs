//! Files that containers hold open and that have no name any more: they take disk, and no walk through folders finds them.
//!
//! Looks, does not judge. Sources: proc_pid_fd(5), memfd_create(2). What vanishes meanwhile counts nothing.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, statat, statfs};

/// File systems whose files are memory, from the kernel's magic.h: tmpfs (also memfd), ramfs, hugetlbfs.
const IN_MEMORY: [u64; 3] = [0x0102_1994, 0x8584_58F6, 0x9584_58F6];
/// Open files of one process that are looked at.
const FILES_MAX: usize = 65_536;

/// Bytes of such files that processes of these containers (by the engine's ids) hold open. Blocking.
#[must_use]
pub fn unlinked_bytes(containers: &[String]) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let mut seen = HashSet::new();
    let mut sum = 0;
    for process in processes.filter_map(Result::ok) {
        let is_process = process.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if is_process && belongs(&process.path(), containers) {
            sum += of_process(&process.path(), &mut seen);
        }
    }
    sum
}

/// The name of a container's control group ends with its id.
fn belongs(process: &Path, containers: &[String]) -> bool {
    let Ok(groups) = fs::read_to_string(process.join("cgroup")) else { return false };
    containers.iter().any(|id| !id.is_empty() && groups.contains(id.as_str()))
}

fn of_process(process: &Path, seen: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return 0 };
    let mut sum = 0;
    for file in files.filter_map(Result::ok).take(FILES_MAX) {
        let path = file.path();
        // Follows to the open file itself.
        let Ok(stat) = statat(CWD, &path, AtFlags::empty()) else { continue };
        let is_unlinked =
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 0;
        if !is_unlinked || stat.st_blocks == 0 || !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        let on_disk = statfs(&path).is_ok_and(|fs| !IN_MEMORY.contains(&(fs.f_type as u64 & 0xFFFF_FFFF)));
        if on_disk {
            sum += andon_snapshot::file_bytes(&stat);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_without_a_name_is_counted_once_and_memory_is_not() {
        let me = Path::new("/proc/self");
        let before = of_process(me, &mut HashSet::new());
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        let again = file.try_clone().unwrap();
        let mut memory = tempfile::tempfile_in("/dev/shm").unwrap();
        memory.write_all(&vec![1; 8 << 20]).unwrap();
        let grown = of_process(me, &mut HashSet::new()) - before;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
        drop((file, again, memory));
    }

    #[test]
    fn processes_of_other_containers_do_not_count() {
        assert!(!belongs(Path::new("/proc/self"), &["no-such-container".to_owned(), String::new()]));
    }
}
