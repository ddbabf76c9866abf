//! Whether this machine can rewind: tried out on a process of ours, not concluded from a version.
//!
//! The victim is `cat`, which says when it has come to its loop; it is rewound twice with every byte compared, so ptrace, injected calls, userfaultfd with `WP_ASYNC` and
//! `WP_UNPOPULATED`, `PAGEMAP_SCAN`, pidfds of threads and kcmp have all done their work once. Costs some milliseconds.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use crate::arch::native;
use crate::{Baseline, Broken, Check, Refused, Target, Unlike};

/// Times of change that cannot miss one (multigrain timestamps).
const KERNEL_MIN: (u32, u32) = (6, 13);
/// Processors that offer several sizes run most kernels with this one.
const PAGE_BYTES: usize = 4096;
const VICTIM: &str = "cat";

/// What was found on a machine that can rewind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: String,
    /// From the first stop until all ran again, for the smallest process there is.
    pub rewind: std::time::Duration,
}

/// One thing that a machine lacks.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
    /// The processor has no file in `arch`.
    #[error("this processor is not known (x86_64 and aarch64 are)")]
    Processor,
    /// The kernel's pages are of another size, in bytes.
    #[error("pages of {0} bytes; {PAGE_BYTES} are needed")]
    Pages(usize),
    /// The kernel is too old.
    #[error("kernel {0}: {min}.{minor} or later is needed", min = KERNEL_MIN.0, minor = KERNEL_MIN.1)]
    Kernel(String),
    /// No process could be started to try it on.
    #[error("no process to try it on")]
    Victim(#[source] io::Error),
    /// No baseline of the smallest process there is: the cause says what is missing (ptrace, userfaultfd, the page map, kcmp).
    #[error("a baseline cannot be taken")]
    Baseline(#[source] Refused),
    /// No way back to it.
    #[error("a process cannot be rewound")]
    Rewind(#[source] Broken),
}

/// Why this machine cannot rewind.
#[derive(Debug, thiserror::Error)]
#[error("rewinding is not available")]
pub struct Unavailable(#[source] pub Lack);

impl From<Lack> for Unavailable {
    fn from(lack: Lack) -> Self {
        Self(lack)
    }
}

struct Victim(Child);

impl Victim {
    fn start() -> io::Result<Self> {
        let mut command = Command::new(VICTIM);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut victim = Self(command.spawn()?);
        // Before its loop it is still being loaded, and registers with the kernel what a rewind does not take back.
        let mut said = [b'?'];
        if let (Some(input), Some(output)) = (&mut victim.0.stdin, &mut victim.0.stdout) {
            input.write_all(&said)?;
            output.read_exact(&mut said)?;
        }
        Ok(victim)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Tries it out.
pub fn available() -> Result<Facts, Unavailable> {
    if !native::KNOWN {
        return Err(Lack::Processor.into());
    }
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&kernel).is_none_or(|version| version < KERNEL_MIN) {
        return Err(Lack::Kernel(kernel).into());
    }
    let page = rustix::param::page_size();
    if page != PAGE_BYTES {
        return Err(Lack::Pages(page).into());
    }
    let victim = Victim::start().map_err(Lack::Victim)?;
    let root = victim.0.id().try_into().map_err(|_| Lack::Victim(io::ErrorKind::InvalidData.into()))?;
    let mut baseline = Baseline::take(&[Target { root, trees: Vec::new() }]).map_err(Lack::Baseline)?;
    baseline.rewind(Check::Bytes, Unlike::Kill).map_err(Lack::Rewind)?;
    let rewound = baseline.rewind(Check::Bytes, Unlike::Kill).map_err(Lack::Rewind)?;
    Ok(Facts { kernel, rewind: rewound.took() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_rewind() {
        let facts = available().unwrap();
        assert!(version(&facts.kernel).unwrap() >= KERNEL_MIN);
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("nonsense"), None);
    }
}
