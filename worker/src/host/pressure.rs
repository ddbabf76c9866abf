//! How much memory is to be had now, and how much work waits for a processor or for memory.
//!
//! Looks, does not judge. Sources: proc_meminfo(5), the kernel's documentation of pressure stall information and of control
//! groups. What a host does not tell is `None`.

use std::fs;

/// Above this a limit of a control group is none.
const NO_LIMIT: u64 = 1 << 60;

/// What was found at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// Bytes that can be used before anything has to give way: of the machine, or of the box's own limit.
    pub available_bytes: u64,
    /// Percent of the last ten seconds in which something waited for a processor.
    pub cpu_waited: Option<f32>,
    /// Percent of the last ten seconds in which something waited for memory.
    pub memory_waited: Option<f32>,
}

impl Pressure {
    /// Blocking, some dozen microseconds.
    #[must_use]
    pub fn look() -> Self {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
        let available_bytes = machine.unwrap_or(u64::MAX).min(own_limit().unwrap_or(u64::MAX));
        let waited = |what: &str| some_avg10(&fs::read_to_string(format!("/proc/pressure/{what}")).ok()?);
        Self { available_bytes, cpu_waited: waited("cpu"), memory_waited: waited("memory") }
    }
}

/// Memory of a process's control group that only its end gives back, in bytes. Blocking, some dozen microseconds.
#[must_use]
pub fn held_bytes(pid: u32) -> Option<u64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let (file, field) = memory_file(&groups)?;
    field_of(&fs::read_to_string(file).ok()?, field)
}

/// How many processes of this process's own control group, not of those beneath, the kernel has killed for want of memory.
#[must_use]
pub fn own_oom_kills() -> Option<u64> {
    let (folder, is_v1) = memory_group(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    kills_of(&folder, is_v1)
}

/// What the kernel knows of a container by its first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomKills {
    /// This many of its processes were killed for want of memory.
    Are(u64),
    /// The process has ended, and the group may have gone with it.
    Ended,
    /// The group is not to be found or another one's.
    Untold,
}

/// How many processes of a container the kernel has killed for want of memory. Blocking, some dozen microseconds.
#[must_use]
pub fn container_oom_kills(id: &str, pid: u32) -> OomKills {
    match fs::read_to_string(format!("/proc/{pid}/cgroup")) {
        Ok(groups) => {
            let own = memory_group(&groups).filter(|(folder, _)| !id.is_empty() && folder.contains(id));
            let kills = own.and_then(|(folder, is_v1)| kills_of(&folder, is_v1));
            kills.map_or(OomKills::Untold, OomKills::Are)
        }
        Err(_) if pid == 0 => OomKills::Untold,
        Err(_) => OomKills::Ended,
    }
}

fn kills_of(folder: &str, is_v1: bool) -> Option<u64> {
    let file = if is_v1 { "memory.oom_control" } else { "memory.events.local" };
    field_of(&fs::read_to_string(format!("{folder}/{file}")).ok()?, "oom_kill")
}

/// What this box's memory is limited to, in bytes.
#[must_use]
pub fn own_memory_limit() -> Option<u64> {
    either("memory.max", "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT)
}

/// A number of the box's outermost group, by the name of its file in version 2 and in version 1.
fn either(v2: &str, v1: &str) -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    number(&format!("/sys/fs/cgroup/{v2}")).or_else(|| number(&format!("/sys/fs/cgroup/memory/{v1}")))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What is left of this box's own limit.
fn own_limit() -> Option<u64> {
    let limit = own_memory_limit()?;
    // Files in the page cache give way.
    let used = fs::read_to_string("/sys/fs/cgroup/memory.stat").ok().and_then(|text| field_of(&text, "anon"));
    let old = || {
        let text = fs::read_to_string("/sys/fs/cgroup/memory/memory.stat").ok()?;
        field_of(&text, "total_rss")
    };
    Some(limit.saturating_sub(used.or_else(old)?))
}

/// `some avg10=1.23 avg60=… total=…`.
fn some_avg10(text: &str) -> Option<f32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

/// Where a group's memory is told, and by which field.
fn memory_file(groups: &str) -> Option<(String, &'static str)> {
    let (folder, is_v1) = memory_group(groups)?;
    Some((format!("{folder}/memory.stat"), if is_v1 { "total_rss" } else { "anon" }))
}

/// The folder of a group's memory, and whether it is of version 1, from a process's list of groups (cgroups(7)).
fn memory_group(groups: &str) -> Option<(String, bool)> {
    let parts = |line: &str| -> Option<(String, String)> {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    let all: Vec<_> = groups.lines().filter_map(parts).collect();
    let v1 = all.iter().find(|(controllers, _)| controllers.split(',').any(|one| one == "memory"));
    if let Some((_, path)) = v1 {
        return Some((format!("/sys/fs/cgroup/memory{}", path.trim_end_matches('/')), true));
    }
    let (_, path) = all.iter().find(|(controllers, _)| controllers.is_empty())?;
    Some((format!("/sys/fs/cgroup{}", path.trim_end_matches('/')), false))
}

fn field_of(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 * 1024 * 1024));
        let pressure =
            "some avg10=12.50 avg60=3.00 avg300=1.00 total=1\nfull avg10=1.00 avg60=0 avg300=0 total=0\n";
        assert_eq!(some_avg10(pressure), Some(12.5));
        assert_eq!(field_of("anon_thp 7\nanon 42\n", "anon"), Some(42));
        let v1 = "12:cpu,cpuacct:/docker/c\n4:memory:/docker/c\n0::/docker/c\n";
        assert_eq!(memory_file(v1), Some(("/sys/fs/cgroup/memory/docker/c/memory.stat".into(), "total_rss")));
        let v2 = "0::/docker/c\n";
        assert_eq!(memory_file(v2), Some(("/sys/fs/cgroup/docker/c/memory.stat".into(), "anon")));
        assert_eq!(memory_file(""), None);
    }

    #[test]
    fn who_has_ended_is_told_from_who_is_another() {
        let own = std::process::id();
        assert_eq!(container_oom_kills("", own), OomKills::Untold);
        assert_eq!(container_oom_kills("no-such-container", own), OomKills::Untold);
        assert_eq!(container_oom_kills("c", 0), OomKills::Untold);
        // Above the most that the kernel gives.
        assert_eq!(container_oom_kills("c", u32::MAX), OomKills::Ended);
    }

    #[test]
    fn this_machine_has_memory_to_spare() {
        assert!(Pressure::look().available_bytes > 1024 * 1024);
    }
}
