//! How much a box is given: everything where the host has everything, otherwise all that it has.

use crate::engine::Privileges;
use crate::host::Capabilities;

/// The privileges of a box on a host whose processes can have these capabilities at most.
///
/// `--privileged` and `--cap-add ALL` are refused by runc ("unable to apply caps") where the host's own bounding set lacks
/// something. There every capability but the missing ones is asked for, with the profiles, masked paths and device rules
/// that `--privileged` would lift.
#[must_use]
pub fn privileges(bounding: Capabilities) -> Privileges {
    let missing = bounding.missing();
    if missing.is_empty() {
        return Privileges { privileged: true, private_cgroupns: true, ..Privileges::default() };
    }
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Privileges {
        privileged: false,
        cap_add: words(&["ALL"]),
        cap_drop: words(&missing),
        security_opt: words(&["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"]),
        private_cgroupns: true,
        device_cgroup_rules: words(&["a *:* rwm"]),
    }
}

/// For a message.
pub(super) fn in_words(privileges: &Privileges) -> String {
    if privileges.privileged {
        return "privileged".to_owned();
    }
    if privileges.cap_drop.is_empty() {
        return format!("capabilities {}", privileges.cap_add.join(", "));
    }
    format!("capabilities {} but {}", privileges.cap_add.join(", "), privileges.cap_drop.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    #[test]
    fn a_host_with_everything_gives_everything() {
        let given = privileges(Capabilities::new(ALL, 40));
        assert!(given.privileged && given.private_cgroupns);
        assert_eq!(in_words(&given), "privileged");
    }

    #[test]
    fn a_host_that_lacks_something_gives_the_rest_by_name() {
        let given = privileges(Capabilities::new(ALL & !(1 << 24), 40));
        assert!(!given.privileged && given.private_cgroupns);
        assert_eq!(given.cap_drop, ["SYS_RESOURCE"]);
        assert_eq!(in_words(&given), "capabilities ALL but SYS_RESOURCE");
    }
}
