//! Containers that were started without the daemon (`engine/direct/`) and outlive what started them: the agent was killed, or
//! their daemon is gone or about to go. All of them are disposable, so they are killed.
//!
//! Each has a folder that is called by its id, and its id is in the name of its control group: a process is found by the
//! group that the kernel says it is in, whoever started it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{mounts, orphans};
use crate::engine::direct::remove_group;

/// A killed process is gone within this, or the kernel is in trouble.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often processes are looked for: some may be starting others.
const ROUNDS_MAX: usize = 50;

/// Ends every container that has a folder here, and removes all that is left of it; answers with how many there were.
pub(super) fn end(folder: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let ids: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.len() >= ID_DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .collect();
    let until = Instant::now() + END_LIMIT;
    for _ in 0..ROUNDS_MAX {
        let processes = orphans::processes_where(|groups| ids.iter().any(|id| groups.contains(id.as_str())));
        if processes.is_empty() {
            break;
        }
        orphans::end(&processes, until.saturating_duration_since(Instant::now()));
    }
    mounts::remove_beneath(folder)?;
    for id in &ids {
        if let Some(group) = group_of(&folder.join(id).join("config.json")) {
            // One with a process that cannot die is told of by whoever cannot start there.
            if let Err(error) = remove_group(&group) {
                tracing::warn!(%error, group, "a control group stays");
            }
        }
    }
    fs::remove_dir_all(folder)?;
    Ok(ids.len())
}

/// What a container's id has at least. Nothing shorter is looked for in the names of groups.
const ID_DIGITS_MIN: usize = 32;

fn group_of(config: &Path) -> Option<String> {
    let config: serde_json::Value = serde_json::from_slice(&fs::read(config).ok()?).ok()?;
    config["linux"]["cgroupsPath"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_there_is_nothing_to_end() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(end(&folder.path().join("direct")).unwrap(), 0);
    }

    #[test]
    fn folders_go_and_only_those_of_containers_are_taken_for_such() {
        let folder = tempfile::tempdir().unwrap();
        let direct = folder.path().join("direct");
        let id = "ab".repeat(32);
        for name in ["state", &id, "a"] {
            fs::create_dir_all(direct.join(name).join("rootfs")).unwrap();
        }
        let config = format!("{{\"linux\":{{\"cgroupsPath\":\"/docker/{id}\"}}}}");
        fs::write(direct.join(&id).join("config.json"), config).unwrap();
        assert_eq!(group_of(&direct.join(&id).join("config.json")), Some(format!("/docker/{id}")));
        assert_eq!(end(&direct).unwrap(), 1);
        assert!(!direct.exists());
    }
}
