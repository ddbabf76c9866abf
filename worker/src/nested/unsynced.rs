//! Syncs that do nothing: a filter of system calls for the nested daemon and all that runs in it.
//!
//! What a lane writes is thrown away at the next rebase, and after a crash of the machine every lane is made anew: nothing in
//! it has to outlive the page cache. But database servers sync at each start and commit and with each table, and the engine
//! with each container: most of a small server's start on a slow disk. The filter (seccomp(2), seccomp_filter in the kernel's
//! documentation) has those calls succeed at once. `setpriv` loads it before the daemon's programs start, and every container
//! inherits it. What is published from lanes is synced by the agent itself, which has no such filter.
//!
//! Invariants: every other call, and every call of another architecture (32-bit programs), goes through untouched; a machine
//! on which the filter cannot be loaded works without it.

use std::path::Path;
use std::process::{Command, Stdio};

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    SYS_fdatasync, SYS_fsync, SYS_msync, SYS_sync, SYS_sync_file_range, SYS_syncfs,
};

/// All of them answer 0 where they succeed, and return nothing else.
const SYNCS: [i64; 6] = [SYS_fsync, SYS_fdatasync, SYS_msync, SYS_sync, SYS_syncfs, SYS_sync_file_range];
/// `AUDIT_ARCH_…` of linux/audit.h: the ELF machine, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;
/// Where `struct seccomp_data` has the call's number and the architecture, in bytes.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;

/// Writes the filter and has one program run with it. An error is why it cannot be used here. Blocks for some milliseconds.
pub(super) fn install(path: &Path) -> Result<(), String> {
    std::fs::write(path, program()).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    let trial =
        Command::new("setpriv").args(loading(path)).args(["--", "true"]).stdin(Stdio::null()).output();
    match trial {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("setpriv cannot be run: {error}")),
    }
}

/// What `setpriv` (util-linux 2.41 and later) is told.
pub(super) fn loading(path: &Path) -> [&std::ffi::OsStr; 2] {
    ["--seccomp-filter".as_ref(), path.as_os_str()]
}

/// The filter as the kernel takes it: eight bytes an instruction (`struct sock_filter`).
fn program() -> Vec<u8> {
    let load = |at: u32| (BPF_LD | BPF_W | BPF_ABS, 0, 0, at);
    let answer = |with: u32| (BPF_RET | BPF_K, 0, 0, with);
    let unless = |value: u32, skip: usize| (BPF_JMP | BPF_JEQ | BPF_K, 0, skip, value);
    let when = |value: u32, skip: usize| (BPF_JMP | BPF_JEQ | BPF_K, skip, 0, value);
    let mut code = vec![load(ARCHITECTURE_AT), unless(ARCHITECTURE, SYNCS.len() + 1), load(NUMBER_AT)];
    for (place, call) in SYNCS.iter().enumerate() {
        code.push(when(u32::try_from(*call).expect("a call's number"), SYNCS.len() - place));
    }
    code.push(answer(SECCOMP_RET_ALLOW));
    // Error number 0: the call is not made, and has succeeded.
    code.push(answer(SECCOMP_RET_ERRNO));
    let bytes = |(code, yes, no, value): (u32, usize, usize, u32)| {
        let small = |number: usize| u8::try_from(number).expect("a short program");
        let code = u16::try_from(code).expect("an instruction's code").to_ne_bytes();
        let value = value.to_ne_bytes();
        [code[0], code[1], small(yes), small(no), value[0], value[1], value[2], value[3]]
    };
    code.into_iter().flat_map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, for one call.
    fn judge(architecture: u32, number: i64) -> u32 {
        let program = program();
        let (mut at, mut value) = (0, 0);
        loop {
            let one = &program[at * 8..at * 8 + 8];
            let code = u32::from(u16::from_ne_bytes([one[0], one[1]]));
            let operand = u32::from_ne_bytes([one[4], one[5], one[6], one[7]]);
            at += 1;
            match code {
                code if code == BPF_RET | BPF_K => return operand,
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    value = if operand == NUMBER_AT { u32::try_from(number).unwrap() } else { architecture };
                }
                _ => at += usize::from(if value == operand { one[2] } else { one[3] }),
            }
        }
    }

    #[test]
    fn syncs_succeed_unmade_and_all_else_goes_through() {
        for call in 0..600 {
            let expected = if SYNCS.contains(&call) { SECCOMP_RET_ERRNO } else { SECCOMP_RET_ALLOW };
            assert_eq!(judge(ARCHITECTURE, call), expected, "call {call}");
            assert_eq!(judge(0x4000_0003, call), SECCOMP_RET_ALLOW, "call {call} of a 32-bit program");
        }
    }
}
