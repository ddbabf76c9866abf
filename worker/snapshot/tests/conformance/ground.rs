//! Where a case happens: a fresh file system in a file, mounted, and gone afterwards. And trees to plant there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use andon_snapshot::{Baseline, Pool, PoolKind, PoolOptions};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, lsetxattr, makedev, mknodat};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// Enough for XFS, sparse.
const IMAGE_BYTES: u64 = 400 << 20;

pub(crate) struct Ground {
    temp: TempDir,
    root: PathBuf,
}

impl Ground {
    /// A file system on which this kind works in place, and no faster one.
    pub(crate) fn for_kind(kind: PoolKind) -> Ground {
        match kind {
            PoolKind::Reflink => Ground::new("mkfs.xfs", &["-q"], "xfsprogs"),
            PoolKind::Btrfs => Ground::new("mkfs.btrfs", &["-q"], "btrfs-progs"),
            PoolKind::Overlay | PoolKind::Copy => Ground::plain(),
        }
    }

    /// The same, with room for some 10^5 files.
    pub(crate) fn roomy(kind: PoolKind) -> Ground {
        const BYTES: u64 = 2 << 30;
        match kind {
            PoolKind::Reflink => Ground::sized(BYTES, "mkfs.xfs", &["-q"], "xfsprogs"),
            PoolKind::Btrfs => Ground::sized(BYTES, "mkfs.btrfs", &["-q"], "btrfs-progs"),
            PoolKind::Overlay | PoolKind::Copy => {
                let args = ["-q", "-O", "^has_journal", "-N", "400000"];
                Ground::sized(BYTES, "mkfs.ext4", &args, "e2fsprogs")
            }
        }
    }

    /// ext4: neither snapshots nor reflinks.
    pub(crate) fn plain() -> Ground {
        Ground::new("mkfs.ext4", &["-q", "-O", "^has_journal"], "e2fsprogs")
    }

    /// The same of another size; sparse.
    pub(crate) fn plain_of(bytes: u64) -> Ground {
        Ground::sized(bytes, "mkfs.ext4", &["-q", "-O", "^has_journal"], "e2fsprogs")
    }

    fn new(mkfs: &str, args: &[&str], package: &str) -> Ground {
        Ground::sized(IMAGE_BYTES, mkfs, args, package)
    }

    pub(crate) fn sized(bytes: u64, mkfs: &str, args: &[&str], package: &str) -> Ground {
        assert!(
            rustix::process::geteuid().is_root(),
            "the pool's tests mount file systems: run them as root"
        );
        let temp = tempfile::Builder::new().prefix("pool-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (image, root) = (temp.path().join("ground.img"), temp.path().join("ground"));
        fs::create_dir(&root).unwrap();
        File::create(&image).unwrap().set_len(bytes).unwrap();
        run(mkfs, &[args, &[image.to_str().unwrap()]].concat(), package);
        run("mount", &["-o", "loop", image.to_str().unwrap(), root.to_str().unwrap()], "mount");
        Ground { temp, root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A folder outside of the ground's file system.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        let path = self.temp.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) fn open(&self, kind: PoolKind) -> Pool {
        let pool =
            Pool::open(&self.root, PoolOptions { kind: Some(kind), ..PoolOptions::default() }).unwrap();
        assert_eq!(pool.kind(), kind);
        assert!(!pool.in_image());
        pool
    }

    /// Mount points below the ground.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(&self.root) && *point != self.root).collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev().chain([&self.root]) {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

/// Runs a program of the machine; says which package is missing.
pub(crate) fn run(program: &str, args: &[&str], package: &str) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| {
        panic!("cannot run {program} ({error}): install the Debian package {package}");
    });
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Bytes that do not compress and are the same every time.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A small database's folder: an odd owner, a tight mode, a file in a subfolder.
pub(crate) fn plant_volume(dir: &Path) {
    fs::create_dir_all(dir.join("shop")).unwrap();
    fs::write(dir.join("ibdata1"), noise(1, 300_000)).unwrap();
    fs::write(dir.join("shop/orders.ibd"), noise(2, 114_688)).unwrap();
    fs::write(dir.join("auto.cnf"), "[auto]\n").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    for path in ["", "ibdata1", "shop", "shop/orders.ibd", "auto.cnf"] {
        chown(dir.join(path), Some(999), Some(998)).unwrap();
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(dir.join("shop/orders.ibd"), fs::Permissions::from_mode(0o640)).unwrap();
}

/// What `setcap cap_net_bind_service=ep` writes.
pub(crate) const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What a container layer may hold, and the odd things besides.
pub(crate) fn plant_layer(dir: &Path) {
    let node = |name: &str, kind, device| {
        mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    let attribute = |name: &str, key: &str, value: &[u8]| {
        lsetxattr(dir.join(name), key, value, XattrFlags::empty()).unwrap();
    };
    for folder in ["etc", "etc/opaque", "run", "tmp"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    fs::write(dir.join("etc/passwd"), "root").unwrap();
    fs::write(dir.join("tool"), noise(3, 9000)).unwrap();
    fs::hard_link(dir.join("tool"), dir.join("etc/tool")).unwrap();
    symlink("/nowhere/at all", dir.join("link")).unwrap();
    symlink("x".repeat(300), dir.join("etc/long-link")).unwrap();
    let long = "long-".repeat(40);
    fs::create_dir_all(dir.join(&long)).unwrap();
    fs::write(dir.join(&long).join("ünïcode\nand a line"), "x").unwrap();
    let bytes: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"not-utf8-\xff\xfe");
    fs::write(dir.join(bytes), "y").unwrap();
    node("whiteout", FileType::CharacterDevice, makedev(0, 0));
    node("pipe", FileType::Fifo, 0);
    attribute("etc/opaque", "trusted.overlay.opaque", b"y");
    attribute("etc/passwd", "user.note", b"line\nand \0 nul");
    attribute("etc/passwd", "user.a=b%", b"");
    attribute("tool", "security.capability", &CAPABILITY);
    attribute("link", "trusted.note", b"on a link");
    fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.set_len(200 << 20).unwrap();
    sparse.write_all_at(b"far away", 150 << 20).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(dir.join("run/socket")).unwrap();
    drop(socket);
    chown(dir.join("etc"), Some(70_000), Some(3_000_000)).unwrap();
}

/// What `plant_layer` put there as attributes is there. Asked of the kernel, not of the digest: what the pool cannot see
/// is in no digest either.
pub(crate) fn assert_layers_attributes(tree: &Path) {
    let wanted: [(&str, &str, &[u8]); 5] = [
        ("etc/opaque", "trusted.overlay.opaque", b"y"),
        ("etc/passwd", "user.note", b"line\nand \0 nul"),
        ("etc/passwd", "user.a=b%", b""),
        ("tool", "security.capability", &CAPABILITY),
        ("link", "trusted.note", b"on a link"),
    ];
    for (path, name, wanted) in wanted {
        let mut value = [0; 64];
        let length = lgetxattr(tree.join(path), name, &mut value[..])
            .unwrap_or_else(|error| panic!("{name} of {path}: {error}"));
        assert_eq!(&value[..length], wanted, "{name} of {path}");
    }
}

/// A baseline of one volume.
pub(crate) fn seeded(ground: &Ground, pool: &Pool) -> Baseline {
    let from = ground.outside("volume");
    plant_volume(&from);
    let mut staging = pool.stage("key-1").unwrap();
    staging.capture("volume/data", &from).unwrap();
    staging.publish(serde_json::json!({ "why": "test" })).unwrap()
}
