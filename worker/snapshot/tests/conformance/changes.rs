//! Which paths were changed, and deep checks that read every byte.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use andon_snapshot::{Change, ChangeKind, Difference, Footprint, Pool, PoolKind};
use rustix::fs::{XattrFlags, lsetxattr};

use crate::ground::{Ground, noise, plant_layer, plant_volume, seeded};

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn attribute(path: &Path, value: &[u8]) {
    lsetxattr(path, "user.note", value, XattrFlags::empty()).unwrap();
}

pub(crate) fn changes_are_listed_by_path_and_kind_the_most_bytes_first(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let lane = pool.clone_lane("0", &seeded(&ground, &pool)).unwrap();
    assert_eq!(lane.changes(9).unwrap().footprint, Footprint::default());
    let data = lane.path("volume/data").unwrap();
    write_at(&data.join("ibdata1"), 8192, &noise(77, 8192));
    fs::write(data.join("new"), noise(5, 5000)).unwrap();
    fs::remove_file(data.join("auto.cnf")).unwrap();
    chown(data.join("shop"), Some(7), None).unwrap();
    attribute(&data.join("shop/orders.ibd"), b"x");
    fs::remove_file(data.join("empty")).unwrap();
    symlink("new", data.join("empty")).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let in_place = lane.changes(100).unwrap();
    let retired = lane.reset().unwrap();
    let changes = retired.changes(100).unwrap();
    assert_eq!(changes, in_place);
    assert_eq!(changes.footprint, retired.footprint().unwrap());
    let [tree] = &changes.trees[..] else { panic!("{changes:?}") };
    assert_eq!((tree.tree.as_str(), tree.footprint, tree.left_out), ("volume/data", changes.footprint, 0));
    let listed: Vec<_> =
        tree.files.iter().map(|one| (one.path.to_str().unwrap(), one.change, one.bytes)).collect();
    let expected = [
        ("ibdata1", ChangeKind::Content, 8192),
        ("new", ChangeKind::Added, 5000),
        ("", ChangeKind::Mode, 0),
        ("auto.cnf", ChangeKind::Removed, 0),
        ("empty", ChangeKind::Kind, 0),
        ("shop", ChangeKind::Owner, 0),
        ("shop/orders.ibd", ChangeKind::Attributes, 0),
    ];
    assert_eq!(listed, expected);
    let short = retired.changes(2).unwrap();
    assert_eq!((&short.trees[0].files[..], short.trees[0].left_out), (&tree.files[..2], 5));
    assert_eq!(short.footprint, changes.footprint);
    assert_eq!(lane.changes(9).unwrap().footprint, Footprint::default());
}

pub(crate) fn changes_of_a_tree_elsewhere_are_listed_whatever_its_names_are(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("layer");
    plant_layer(&from);
    let mut staging = pool.stage("layers").unwrap();
    staging.capture("layer/db", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    let dest = ground.outside("far");
    pool.restore_into(&baseline, "layer/db", &dest).unwrap();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"not-utf8-\xff\xfe");
    fs::write(dest.join(odd), "other").unwrap();
    let changes = pool.changes_of(&baseline, "layer/db", &dest, 10).unwrap();
    assert_eq!(changes.footprint, pool.footprint_of(&baseline, "layer/db", &dest).unwrap());
    assert_eq!(changes.trees[0].files[0].path, Path::new(odd));
    let json = serde_json::to_value(&changes).unwrap();
    let expected = serde_json::json!({ "path": "not-utf8-%FF%FE", "change": "content", "bytes": 5 });
    assert_eq!(json["trees"][0]["files"][0], expected);
}

/// Changes what is in a file, and hides it: size, mode and time stay.
fn tamper(path: &Path) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"sly", 5000).unwrap();
    file.set_modified(time).unwrap();
}

pub(crate) fn a_deep_check_finds_what_a_cheap_one_cannot_see(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool: Pool = ground.open(kind);
    let from = ground.outside("volume");
    plant_volume(&from);
    attribute(&from.join("auto.cnf"), b"was");
    let mut staging = pool.stage("k").unwrap();
    staging.capture("volume/data", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    let lane = pool.clone_lane("0", &baseline).unwrap();
    lane.verify_deep().unwrap();
    let data = lane.path("volume/data").unwrap();

    tamper(&data.join("ibdata1"));
    lane.verify().unwrap();
    let Difference { path, change, .. } = lane.verify_deep().unwrap_err();
    assert_eq!((path.as_str(), change), ("ibdata1", Change::Content { bytes: 4096 }));
    lane.reset().unwrap().discard().unwrap();

    attribute(&data.join("auto.cnf"), b"is");
    lane.verify().unwrap();
    let Difference { path, change, .. } = lane.verify_deep().unwrap_err();
    assert_eq!(path, "auto.cnf");
    assert!(matches!(change, Change::Attribute { name: "attributes", .. }), "{change:?}");
    lane.reset().unwrap().discard().unwrap();

    // What the cheap check finds the deep one finds as well.
    fs::set_permissions(data.join("empty"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(lane.verify_deep().unwrap_err(), lane.verify().unwrap_err());
    lane.reset().unwrap().discard().unwrap();
    lane.verify_deep().unwrap();

    let dest = ground.outside("far");
    pool.restore_into(&baseline, "volume/data", &dest).unwrap();
    pool.verify_deep_in(&baseline, "volume/data", &dest).unwrap();
    tamper(&dest.join("shop/orders.ibd"));
    let difference = pool.verify_deep_in(&baseline, "volume/data", &dest).unwrap_err();
    assert_eq!(difference.path, "shop/orders.ibd");
    pool.verify_deep_in(&baseline, "volume/no", &dest).unwrap_err();
}

/// Btrfs seals its baselines; in the others root can write, and a disk can rot in all of them.
#[test]
fn a_clone_of_a_baseline_that_rotted_is_found_by_a_deep_check() {
    for kind in [PoolKind::Reflink, PoolKind::Overlay, PoolKind::Copy] {
        let ground = Ground::for_kind(kind);
        let pool = ground.open(kind);
        let baseline = seeded(&ground, &pool);
        let tree = pool.dir().join("baselines/key-1/set/t/volume%2Fdata");
        let file = File::options().write(true).open(tree.join("ibdata1")).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(b"rot", 0).unwrap();
        file.set_modified(time).unwrap();
        let lane = pool.clone_lane("0", &baseline).unwrap();
        lane.verify().unwrap();
        let change = lane.verify_deep().unwrap_err().change;
        assert!(matches!(change, Change::Attribute { name: "digest", .. }), "{change:?}");
    }
}
