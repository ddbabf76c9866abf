//! Sets of capabilities by name (capabilities(7)).

use std::fmt;

/// All capabilities up to Linux 6.18, by number.
pub const KNOWN: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container engine and the containers that it starts by default need.
pub(super) const NEEDED: [&str; 16] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_CHROOT",
    "SYS_ADMIN",
    "MKNOD",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    bits: u64,
    /// The highest one that this kernel knows.
    last: u32,
}

impl Capabilities {
    /// From the kernel's bit mask and the number of its last capability.
    #[must_use]
    pub fn new(bits: u64, last: u32) -> Self {
        Self { bits, last }
    }

    /// One line of `/proc/self/status`: `CapBnd:\t000001ffffffffff`.
    pub(super) fn parse(status: &str, field: &str, last: u32) -> Option<Self> {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(Self::new(u64::from_str_radix(line.trim(), 16).ok()?, last))
    }

    /// Whether it holds this one; a name that is not known is not held.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        let number = KNOWN.iter().position(|known| *known == name);
        number.is_some_and(|number| self.bits >> number & 1 == 1)
    }

    /// Those that the kernel knows and this set lacks.
    #[must_use]
    pub fn missing(self) -> Vec<&'static str> {
        let exists = |number: usize| u32::try_from(number).is_ok_and(|number| number <= self.last);
        let lacking = KNOWN.iter().enumerate().filter(|(number, name)| exists(*number) && !self.has(name));
        lacking.map(|(_, name)| *name).collect()
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing();
        if missing.is_empty() { f.write_str("all") } else { write!(f, "all but {}", missing.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounding_set_without_one_capability_names_it() {
        let status = "Name:\tx\nCapBnd:\t000001fffeffffff\n";
        let set = Capabilities::parse(status, "CapBnd", 40).expect("it is there");
        assert_eq!(set.missing(), ["SYS_RESOURCE"]);
        assert!(set.has("SYS_ADMIN") && !set.has("SYS_RESOURCE") && !set.has("NO_SUCH"));
        assert_eq!(set.to_string(), "all but SYS_RESOURCE");
    }

    #[test]
    fn capabilities_that_an_older_kernel_does_not_know_are_not_missing() {
        assert_eq!(Capabilities::new((1 << 38) - 1, 37).missing(), Vec::<&str>::new());
    }

    #[test]
    fn everything_that_is_needed_is_known() {
        assert!(NEEDED.iter().all(|name| KNOWN.contains(name)));
    }
}
