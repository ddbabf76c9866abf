//! Bridges that the daemon made for its networks: removed where no daemon knows them any more.
//!
//! Only for a network namespace that is the box's own: elsewhere a bridge may be another daemon's.

use std::io;
use std::process::{Command, Output};

/// The daemon names a bridge after the first twelve digits of its network's id.
const PREFIX: &str = "br-";
const DIGITS: usize = 12;

/// Removes every bridge of this network namespace that bears a network's id.
pub(super) fn remove_all() -> io::Result<()> {
    let listed = ip(&["-o", "link", "show", "type", "bridge"])?;
    for name in names(&String::from_utf8_lossy(&listed.stdout)) {
        ip(&["link", "delete", name])?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> io::Result<Output> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", arguments.join(" "), said.trim())))
}

/// Names of the daemon's bridges in what `ip -o link` prints: `3: br-0123456789ab: <…> …`.
fn names(listed: &str) -> Vec<&str> {
    let of = |line| {
        let name = str::split(line, ": ").nth(1)?;
        let digits = name.strip_prefix(PREFIX)?;
        let is_id = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some(name)
    };
    listed.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bridges_that_bear_a_networks_id_are_named() {
        let listed = "4: br-0a1b2c3d4e5f: <UP> mtu 1500 \\ link/ether 02:42\n5: br-lan: <UP> mtu 1500\n6: docker0: <UP> mtu 1500\n";
        assert_eq!(names(listed), ["br-0a1b2c3d4e5f"]);
    }
}
