//! Where a SQLite file may lie. Its locks and its shared memory do not work over a network: a database there is lost sooner or
//! later, and nothing says so until it is.

use std::path::Path;

use super::{Result, StoreError};

/// Refuses a folder on a file system of another machine.
pub(super) fn check_local(folder: &Path) -> Result<()> {
    // Where it cannot be asked, opening the file says why.
    let Ok(of) = rustix::fs::statfs(folder) else { return Ok(()) };
    // Magic numbers have 32 bits; `f_type` is signed on some machines, and wider.
    match network_file_system(of.f_type as u32) {
        Some(name) => Err(StoreError::Remote { folder: folder.to_owned(), name }),
        None => Ok(()),
    }
}

/// By the numbers of `statfs(2)` and `linux/magic.h`.
fn network_file_system(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b => "SMB",
        0xff53_4d42 => "CIFS",
        0xfe53_4d42 => "SMB2",
        0x00c3_6400 => "Ceph",
        0x5346_414f => "AFS",
        0x0102_1997 => "9p",
        0x0bd0_0bd0 => "Lustre",
        0x0116_1970 => "GFS2",
        0x7461_636f => "OCFS2",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_this_machine_are_taken_and_those_of_others_named() {
        check_local(tempfile::tempdir().unwrap().path()).unwrap();
        let (ext4, xfs, btrfs, tmpfs, overlay) = (0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630);
        for magic in [ext4, xfs, btrfs, tmpfs, overlay] {
            assert_eq!(network_file_system(magic), None, "{magic:x}");
        }
        assert_eq!(network_file_system(0x6969), Some("NFS"));
        assert_eq!(network_file_system(0xff53_4d42), Some("CIFS"));
    }
}
