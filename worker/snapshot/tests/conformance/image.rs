//! The pool's own file system in a file: it grows, it is checked, and one that is damaged is told by name.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use andon_snapshot::{Baseline, LoopFs, Pool, PoolError, PoolKind, PoolOptions};

use crate::ground::{Ground, noise, plant_volume, run};

const MIB: u64 = 1 << 20;
const START: u64 = 330 * MIB;
const BOTH: [LoopFs; 2] = [LoopFs::Xfs, LoopFs::Btrfs];
/// Tells the test that is started again in its own namespace where to work.
const NO_LOOPS: &str = "ANDON_SNAPSHOT_NO_LOOPS_ROOT";

fn options(loop_fs: LoopFs, limit: u64) -> PoolOptions {
    PoolOptions { image_bytes: Some(START), image_bytes_max: Some(limit), loop_fs, ..PoolOptions::default() }
}

fn plant(ground: &Ground, name: &str, bytes: u64) -> PathBuf {
    let from = ground.outside(name);
    fs::write(from.join("data"), noise(bytes, usize::try_from(bytes).unwrap())).unwrap();
    from
}

fn publish(pool: &Pool, key: &str, from: &Path) -> Result<Baseline, PoolError> {
    let mut staging = pool.stage(key)?;
    staging.capture("volume/data", from)?;
    staging.publish(serde_json::Value::Null)
}

/// The kernel lets go of a loop device after its mount, and after those copies of it that another case's namespace has.
fn assert_no_loops(ground: &Ground) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !loops(ground).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", loops(ground));
        std::thread::yield_now();
    }
}

/// Loop devices whose file lies in the ground.
fn loops(ground: &Ground) -> Vec<String> {
    let root = ground.root().canonicalize().unwrap();
    let blocks = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
    let files = blocks.filter_map(|block| fs::read_to_string(block.join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file.trim_end()).starts_with(&root)).collect()
}

#[test]
fn an_image_grows_under_its_lanes_up_to_its_limit() {
    for loop_fs in BOTH {
        let ground = Ground::plain_of(1536 * MIB);
        let limit = 640 * MIB;
        let pool = Pool::open(ground.root(), options(loop_fs, limit)).unwrap();
        let small = publish(&pool, "small", &plant(&ground, "small", 4 * MIB)).unwrap();
        let lane = pool.clone_lane("0", &small).unwrap();
        let before = pool.space().unwrap();
        assert_eq!(before.image.as_ref().unwrap().bytes, START);
        assert!(before.total_bytes > 600 * MIB && before.free_bytes > 400 * MIB, "{before:?}");
        // More than is free in it.
        let big = publish(&pool, "big", &plant(&ground, "big", 330 * MIB)).unwrap();
        big.check().unwrap();
        let image = pool.space().unwrap().image.unwrap();
        assert_eq!((image.bytes, image.grown, image.failure), (limit, 1, None), "{loop_fs:?}");
        assert_eq!(fs::metadata(ground.root().join("pool.img")).unwrap().len(), limit);
        lane.reset().unwrap().discard().unwrap();
        lane.verify_deep().unwrap();
        // More than it may ever hold.
        let error = publish(&pool, "huge", &plant(&ground, "huge", 400 * MIB)).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, PoolError::Full { .. }), "{said}");
        assert!(said.contains("400.0 MiB needed") && said.contains("raise its limit"), "{said}");
        assert_eq!(fs::read_dir(pool.dir().join("staging")).unwrap().count(), 0);
        assert!(pool.remove("big").unwrap());
        publish(&pool, "huge", &ground.outside("huge")).unwrap().check().unwrap();
        drop(lane);
        pool.close().unwrap();
        assert_no_loops(&ground);
        let pool = Pool::open(ground.root(), PoolOptions::default()).unwrap();
        assert_eq!(pool.baselines().len(), 2);
        pool.baseline("huge").unwrap().check().unwrap();
        pool.close().unwrap();
    }
}

#[test]
fn an_image_does_not_grow_beyond_what_the_host_can_hold() {
    for loop_fs in BOTH {
        let ground = Ground::plain_of(1536 * MIB);
        let pool = Pool::open(ground.root(), options(loop_fs, u64::MAX)).unwrap();
        let ballast = File::create(ground.root().join("ballast")).unwrap();
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, 900 * MIB).unwrap();
        let (_, grown) = pool.grow_for(u64::MAX).expect("there is some room");
        let host = rustix::fs::statvfs(ground.root()).unwrap();
        let image = pool.space().unwrap().image.unwrap();
        assert!(grown > START && grown - image.allocated < host.f_bavail * host.f_frsize, "{image:?}");
        // A second time there is nothing left to take.
        assert_eq!(pool.grow_for(u64::MAX), None);
        // Others write beside the pool's own folders; who lets them asks for growth.
        ballast.set_len(0).unwrap();
        let image = pool.space().unwrap().image.unwrap().bytes;
        let docker = pool.dir().join("docker");
        fs::write(&docker, noise(1, usize::try_from(image / 4 * 3).unwrap())).unwrap();
        rustix::fs::sync();
        let (was, now) = pool.grow_for(0).unwrap_or_else(|| panic!("{loop_fs:?} {:?}", pool.space()));
        assert!(was == image && now > was);
        fs::remove_file(docker).unwrap();
        pool.close().unwrap();
    }
}

#[test]
fn an_image_as_a_power_cut_leaves_it_is_replayed_checked_and_grows_to_its_file() {
    for loop_fs in BOTH {
        let ground = Ground::plain_of(1024 * MIB);
        let pool = Pool::open(ground.root(), options(loop_fs, START)).unwrap();
        let from = ground.outside("volume");
        plant_volume(&from);
        publish(&pool, "kept", &from).unwrap();
        let mut lost = pool.stage("lost").unwrap();
        lost.capture("volume/data", &from).unwrap();
        let (image, cut) = (ground.root().join("pool.img"), ground.root().join("cut"));
        // What is on the disk while the file system is in use, its log with it.
        run("cp", &["--sparse=always", image.to_str().unwrap(), cut.to_str().unwrap()], "coreutils");
        drop(lost);
        pool.close().unwrap();
        fs::rename(&cut, &image).unwrap();
        File::create(ground.root().join("pool.img.open")).unwrap();
        // The power went after the file was made longer, before the file system knew.
        File::options().write(true).open(&image).unwrap().set_len(400 * MIB).unwrap();
        let pool = Pool::open(ground.root(), options(loop_fs, START)).unwrap();
        assert!(pool.notes().iter().any(|note| note.contains("was not closed")), "{:?}", pool.notes());
        pool.baseline("kept").unwrap().check().unwrap();
        assert!(pool.baseline("lost").is_none());
        assert_eq!(fs::read_dir(pool.dir().join("staging")).unwrap().count(), 0);
        let size = rustix::fs::statvfs(pool.dir()).unwrap();
        assert!(size.f_blocks * size.f_frsize > START, "{loop_fs:?}");
        pool.close().unwrap();
        let pool = Pool::open(ground.root(), options(loop_fs, START)).unwrap();
        assert!(!pool.notes().iter().any(|note| note.contains("was not closed")), "{:?}", pool.notes());
        pool.close().unwrap();
    }
}

#[test]
fn a_damaged_image_is_told_by_name_and_set_aside_only_where_that_is_allowed() {
    for loop_fs in BOTH {
        let ground = Ground::plain_of(1024 * MIB);
        let image = ground.root().join("pool.img");
        let allowed = PoolOptions { set_aside_damaged: true, ..options(loop_fs, START) };
        Pool::open(ground.root(), options(loop_fs, START)).unwrap().close().unwrap();
        for round in 1..=3 {
            File::options().write(true).open(&image).unwrap().write_all_at(&[0x5a; 128 << 10], 0).unwrap();
            let error = Pool::open(ground.root(), options(loop_fs, START)).unwrap_err();
            assert!(matches!(error, PoolError::ImageDamaged { .. }), "{error:?}");
            let said = error.to_string();
            assert!(said.contains("pool.img is damaged") && said.contains("xfs_repair"), "{said}");
            assert!(image.exists());
            let pool = Pool::open(ground.root(), allowed.clone()).unwrap();
            let aside = ground.root().join(format!("pool.img.broken-{round}"));
            assert!(aside.exists());
            let told = |note: &String| note.contains(aside.to_str().unwrap()) && note.contains("made anew");
            assert!(pool.notes().iter().any(told), "{:?}", pool.notes());
            let from = ground.outside("volume");
            plant_volume(&from);
            publish(&pool, "k", &from).unwrap().check().unwrap();
            pool.close().unwrap();
        }
        // The oldest went.
        assert!(!ground.root().join("pool.img.broken-1").exists());
        assert_no_loops(&ground);
    }
}

#[test]
fn an_image_that_still_mounts_but_fails_its_check_is_told_by_name() {
    let ground = Ground::plain_of(1024 * MIB);
    let image = ground.root().join("pool.img");
    Pool::open(ground.root(), options(LoopFs::Xfs, START)).unwrap().close().unwrap();
    let file = File::options().read(true).write(true).open(&image).unwrap();
    // xfs_format.h: `sb_agblocks` is at byte 84 of the superblock; a group's second sector describes its free space, with
    // the root of the tree by block at byte 16. Mounting does not look into that one.
    let number = |at: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from(u32::from_be_bytes(bytes))
    };
    let group = number(84) * 4096 * 3;
    file.write_all_at(&[0x5a; 512], group + number(group + 512 + 16) * 4096).unwrap();
    File::create(ground.root().join("pool.img.open")).unwrap();
    let error = Pool::open(ground.root(), options(LoopFs::Xfs, START)).unwrap_err();
    assert!(
        matches!(&error, PoolError::ImageDamaged { detail, .. } if detail.contains("xfs_repair -n")),
        "{error}"
    );
    assert_eq!(ground.mounts(), Vec::<PathBuf>::new());
    assert_no_loops(&ground);
}

/// A host without free loop devices cannot be had without harm to it; a namespace in which none can be opened can.
#[test]
fn where_no_loop_device_can_be_had_the_message_says_so_and_a_new_pool_does_without() {
    if let Some(root) = std::env::var_os(NO_LOOPS).map(PathBuf::from) {
        let error = Pool::open(&root.join("old"), options(LoopFs::Xfs, START)).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, PoolError::NoLoopDevice { .. }), "{error:?}");
        assert!(said.contains("are in use on this host (`losetup -a`)"), "{said}");
        let pool = Pool::open(&root.join("new"), options(LoopFs::Xfs, START)).unwrap();
        assert_eq!(pool.kind(), PoolKind::Overlay);
        assert!(pool.notes().iter().any(|note| note.contains("no loop device")), "{:?}", pool.notes());
        return;
    }
    let ground = Ground::plain_of(1024 * MIB);
    Pool::open(&ground.root().join("old"), options(LoopFs::Xfs, START)).unwrap().close().unwrap();
    let mut child = Command::new("unshare");
    // Files in the place of the devices: making these fails, and so does asking them for anything.
    let hide = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && touch /dev/loop-control && \
                for number in $(seq 0 500); do touch /dev/loop$number; done && exec \"$@\"";
    child.args(["--mount", "sh", "-c", hide]);
    child.arg("sh").arg(std::env::current_exe().unwrap()).env(NO_LOOPS, ground.root());
    child.args([
        "image::where_no_loop_device_can_be_had_the_message_says_so_and_a_new_pool_does_without",
        "--exact",
    ]);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    // Its old image is as it was.
    Pool::open(&ground.root().join("old"), options(LoopFs::Xfs, START)).unwrap().close().unwrap();
}
