//! Part of step 6: a stopped process closes descriptors and gets back those that it lacks.
//!
//! There is no call that puts a descriptor into another process. So the process makes a pair of sockets, one end is copied to us, we send our copy of the
//! file over it (`SCM_RIGHTS`), and the process receives it and gives it its number. The pair lives above all numbers of the baseline.
//!
//! Closing any descriptor of a file ends a process's POSIX locks on that file: the caller looks at the locks afterwards.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::arch::Call;
use crate::descriptors::{Descriptor, Descriptors, Work};
use crate::inject::{Caller, with_page};
use crate::kernel;
use crate::memory::Access;

/// The pair of sockets is moved at least here.
const OUT_OF_THE_WAY: u64 = 900;
// Where things lie in the page that is lent for a message: the pair, `struct msghdr`, its `iovec`, its byte, its control message.
const PAIR: u64 = 0;
const HEADER: u64 = 64;
const VECTOR: u64 = 128;
const BYTE: u64 = 192;
const CONTROL: u64 = 256;
/// `CMSG_SPACE` of one descriptor, and where in it the descriptor lies.
const CONTROL_BYTES: u64 = 24;
const CONTROL_DATA: u64 = 16;

/// Closes and hands back what `work` says.
pub(crate) fn restore(
    caller: &mut Caller,
    access: &Access,
    handle: &OwnedFd,
    all: &Descriptors,
    work: &Work,
) -> io::Result<()> {
    for number in &work.close {
        match caller.call(&Call::new(libc::SYS_close, [u64::from(*number)])) {
            // The descriptor is closed then, too; the file system had something to say about an earlier write.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EIO | libc::ENOSPC)) => {}
            other => drop(other?),
        }
    }
    if work.missing.is_empty() {
        return Ok(());
    }
    with_page(caller, |caller, page| {
        let highest = all.all.keys().last().copied().unwrap_or_default();
        let (ours, theirs) = pair(caller, access, handle, page, u64::from(highest) + 1)?;
        for number in &work.missing {
            hand(caller, access, page, &ours, theirs, &all.all[number])?;
        }
        caller.call(&Call::new(libc::SYS_close, [theirs])).map(drop)
    })
}

fn number(access: &Access, at: u64) -> io::Result<u64> {
    let mut bytes = [0; 4];
    access.mem.read_exact_at(&mut bytes, at)?;
    Ok(u32::from_ne_bytes(bytes).into())
}

/// Our end, and the number of the process's.
fn pair(
    caller: &mut Caller,
    access: &Access,
    handle: &OwnedFd,
    page: u64,
    above: u64,
) -> io::Result<(OwnedFd, u64)> {
    let (family, kind) =
        (libc::AF_UNIX.unsigned_abs(), (libc::SOCK_STREAM | libc::SOCK_CLOEXEC).unsigned_abs());
    caller.call(&Call::new(libc::SYS_socketpair, [family.into(), kind.into(), 0, page + PAIR]))?;
    let (first, second) = (number(access, page + PAIR)?, number(access, page + PAIR + 4)?);
    let ours = kernel::copy_descriptor(handle.as_fd(), u32::try_from(first).map_err(io::Error::other)?)?;
    let duplicate = u64::from(libc::F_DUPFD_CLOEXEC.unsigned_abs());
    let place = above.max(OUT_OF_THE_WAY);
    let theirs = caller.call(&Call::new(libc::SYS_fcntl, [second, duplicate, place]))?;
    caller.call(&Call::new(libc::SYS_close, [first]))?;
    caller.call(&Call::new(libc::SYS_close, [second]))?;
    Ok((ours, theirs))
}

fn hand(
    caller: &mut Caller,
    access: &Access,
    page: u64,
    ours: &OwnedFd,
    theirs: u64,
    descriptor: &Descriptor,
) -> io::Result<()> {
    let files = [descriptor.held.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("no room for one descriptor"));
    }
    rustix::net::sendmsg(ours, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    access
        .mem
        .write_all_at(&words(&[0, 0, page + VECTOR, 1, page + CONTROL, CONTROL_BYTES, 0]), page + HEADER)?;
    access.mem.write_all_at(&words(&[page + BYTE, 1]), page + VECTOR)?;
    let flags = u64::from((libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT).unsigned_abs());
    caller.call(&Call::new(libc::SYS_recvmsg, [theirs, page + HEADER, flags]))?;
    let received = number(access, page + CONTROL + CONTROL_DATA)?;
    let wanted = u64::from(descriptor.number);
    let flag = |flag: libc::c_int| if descriptor.close_on_exec { u64::from(flag.unsigned_abs()) } else { 0 };
    if received == wanted {
        let set = u64::from(libc::F_SETFD.unsigned_abs());
        return caller.call(&Call::new(libc::SYS_fcntl, [wanted, set, flag(libc::FD_CLOEXEC)])).map(drop);
    }
    caller.call(&Call::new(libc::SYS_dup3, [received, wanted, flag(libc::O_CLOEXEC)]))?;
    caller.call(&Call::new(libc::SYS_close, [received])).map(drop)
}
