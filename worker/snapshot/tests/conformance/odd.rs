//! Trees that are large, deep or oddly named.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use andon_snapshot::{Footprint, PoolKind, digest_of};

use crate::ground::{Ground, noise};

/// Folders of a thousand files each; ANDON_SNAPSHOT_MANY sets another number: 100 makes 10^5 files, and takes minutes.
const MANY_FOLDERS: usize = 10;
const MANY_IN_EACH: usize = 1000;
/// Longer than any path may be for one system call (PATH_MAX is 4096) would be refused at capture; this is close to it.
const DEEP_FOLDERS: usize = 300;

pub(crate) fn ten_thousand_files_are_a_tree_like_any_other(kind: PoolKind) {
    // XFS and ext4 of the usual size have inodes for fewer.
    let ground = Ground::roomy(kind);
    let pool = ground.open(kind);
    let from = ground.outside("many");
    let folders = std::env::var("ANDON_SNAPSHOT_MANY").map_or(MANY_FOLDERS, |text| text.parse().unwrap());
    assert!(folders > 8);
    for folder in 0..folders {
        let folder = from.join(folder.to_string());
        fs::create_dir(&folder).unwrap();
        (0..MANY_IN_EACH).for_each(|file| drop(fs::File::create(folder.join(file.to_string())).unwrap()));
    }
    fs::write(from.join("8/500"), noise(1, 9000)).unwrap();
    let mut staging = pool.stage("many").unwrap();
    staging.capture("volume/many", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    assert_eq!(
        (baseline.trees()[0].files, baseline.trees()[0].bytes),
        ((folders * MANY_IN_EACH) as u64, 9000)
    );
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let data = lane.path("volume/many").unwrap();
    fs::remove_dir_all(data.join("7")).unwrap();
    fs::write(data.join("8/500"), noise(2, 9000)).unwrap();
    let retired = lane.reset().unwrap();
    let changes = retired.changes(3).unwrap();
    assert_eq!(changes.footprint, Footprint { files: 1002, bytes: 9000 });
    assert_eq!((changes.trees[0].files.len(), changes.trees[0].left_out), (3, 999));
    assert_eq!(changes.trees[0].files[0].path, Path::new("8/500"));
    retired.discard().unwrap();
    lane.verify().unwrap();
}

pub(crate) fn what_is_deep_or_has_odd_names_is_cloned_reset_exported_and_deleted(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("odd");
    let deep: PathBuf = std::iter::repeat_n("folder", DEEP_FOLDERS).collect();
    fs::create_dir_all(from.join(&deep)).unwrap();
    fs::write(from.join(&deep).join("leaf"), noise(1, 5000)).unwrap();
    let longest = [b'n'; 255];
    let names: [&[u8]; 9] = [
        b"not-utf8-\xff\xfe",
        b"new\nline",
        b"tab\t",
        b"back\\slash",
        b"co:lon,comma",
        b"%41%",
        b" ",
        b"-rf",
        &longest,
    ];
    for name in names {
        let dir = from.join(OsStr::from_bytes(name));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let digest = digest_of(&from).unwrap();
    let mut staging = pool.stage("odd").unwrap();
    staging.capture("volume/odd", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    assert_eq!(baseline.trees()[0].tree_digest, digest);
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let data = lane.path("volume/odd").unwrap();
    for name in names {
        let path = data.join(OsStr::from_bytes(name)).join(OsStr::from_bytes(name));
        assert_eq!(fs::read(&path).unwrap(), name);
        fs::write(&path, "dirt").unwrap();
    }
    fs::write(data.join(&deep).join("leaf"), "dirt").unwrap();
    let retired = lane.reset().unwrap();
    let changes = retired.changes(100).unwrap();
    assert_eq!(changes.footprint.files, 10);
    for name in names {
        let path = Path::new(OsStr::from_bytes(name)).join(OsStr::from_bytes(name));
        assert!(changes.trees[0].files.iter().any(|one| one.path == path), "{path:?}");
    }
    retired.discard().unwrap();
    lane.verify_deep().unwrap();
    let mut archive = Vec::new();
    baseline.export("volume/odd", &mut archive).unwrap();
    let mut staging = pool.stage("back").unwrap();
    staging.import("volume/odd", &archive[..]).unwrap();
    assert_eq!(staging.publish(serde_json::Value::Null).unwrap().trees()[0].tree_digest, digest);
    drop(lane);
    assert!(pool.remove("odd").unwrap() && pool.remove("back").unwrap());
    assert_eq!(fs::read_dir(pool.dir().join("trash")).unwrap().count(), 0);
}
