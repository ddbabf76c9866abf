//! What every kind of pool promises.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, UNIX_EPOCH};

use andon_snapshot::{Change, Footprint, LaneClone, PoolError, PoolKind, digest_of};

use crate::ground::{Ground, assert_layers_attributes, noise, plant_layer, plant_volume, seeded};

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

fn assert_pristine(lane: &LaneClone, tree: &str) {
    lane.verify().unwrap();
    let info = lane.baseline().trees().iter().find(|info| info.name == tree).unwrap();
    assert_eq!(digest_of(&lane.path(tree).unwrap()).unwrap(), info.tree_digest);
}

pub(crate) fn a_clone_is_the_baseline_and_a_reset_brings_it_back(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let baseline = seeded(&ground, &pool);
    assert_eq!(baseline.meta()["why"], "test");
    assert_eq!((baseline.trees()[0].files, baseline.trees()[0].bytes), (4, 300_000 + 114_688 + 7));
    let lane = pool.clone_lane("lane 0", &baseline).unwrap();
    assert_pristine(&lane, "volume/data");
    let data = lane.path("volume/data").unwrap();
    for spare in [false, true] {
        fs::remove_file(data.join("auto.cnf")).unwrap();
        fs::rename(data.join("shop"), data.join("gone")).unwrap();
        write_at(&data.join("ibdata1"), 100, b"dirt");
        assert!(lane.verify().is_err());
        if spare {
            lane.ready_spare().unwrap();
        }
        assert_eq!(lane.has_spare(), spare);
        lane.reset().unwrap().discard().unwrap();
        assert_pristine(&lane, "volume/data");
    }
    lane.retire().unwrap().discard().unwrap();
    assert_eq!(ground.mounts(), Vec::<std::path::PathBuf>::new());
    assert_eq!(fs::read_dir(pool.dir().join("lanes")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(pool.dir().join("trash")).unwrap().count(), 0);
}

pub(crate) fn paths_and_the_lanes_folder_stay_the_same_over_resets(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let baseline = seeded(&ground, &pool);
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let other = pool.clone_lane("1", &baseline).unwrap();
    let before = (lane.path("volume/data").unwrap(), fs::metadata(lane.dir()).unwrap().ino());
    fs::write(before.0.join("dirt"), "x").unwrap();
    lane.reset().unwrap().discard().unwrap();
    assert_eq!((lane.path("volume/data").unwrap(), fs::metadata(lane.dir()).unwrap().ino()), before);
    assert!(before.0.starts_with(lane.dir()) && !before.0.join("dirt").exists());
    assert_ne!(other.path("volume/data").unwrap(), before.0);
    other.verify().unwrap();
    assert!(matches!(pool.clone_lane("1", &baseline), Err(PoolError::LaneInUse { .. })));
    drop(other);
    pool.clone_lane("1", &baseline).unwrap().verify().unwrap();
}

pub(crate) fn who_waits_for_a_lane_gets_it_when_its_spare_is_made(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let baseline = seeded(&ground, &pool);
    let lane = Arc::new(pool.clone_lane("0", &baseline).unwrap());
    // Whoever prepares the next clone has the lane for longer than whoever used it.
    let (preparing, (began, begin)) = (Arc::clone(&lane), mpsc::channel());
    let prepared = std::thread::spawn(move || {
        began.send(()).unwrap();
        preparing.ready_spare().unwrap();
    });
    begin.recv().unwrap();
    drop(lane);
    pool.wait_for_lane("0", Duration::from_secs(60));
    let lane = pool.clone_lane("0", &baseline).unwrap();
    lane.verify().unwrap();
    prepared.join().unwrap();
    pool.wait_for_lane("0", Duration::from_millis(1));
    assert!(matches!(pool.clone_lane("0", &baseline), Err(PoolError::LaneInUse { .. })));
}

pub(crate) fn one_written_page_counts_one_page(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let lane = pool.clone_lane("0", &seeded(&ground, &pool)).unwrap();
    write_at(&lane.path("volume/data").unwrap().join("shop/orders.ibd"), 8192, &noise(77, 4096));
    let retired = lane.reset().unwrap();
    assert_eq!(retired.footprint().unwrap(), Footprint { files: 1, bytes: 4096 });
    retired.discard().unwrap();
    assert_eq!(lane.reset().unwrap().footprint().unwrap(), Footprint::default());
}

pub(crate) fn added_removed_and_changed_entries_are_counted(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let lane = pool.clone_lane("0", &seeded(&ground, &pool)).unwrap();
    let data = lane.path("volume/data").unwrap();
    fs::write(data.join("new"), noise(5, 5000)).unwrap();
    fs::remove_file(data.join("auto.cnf")).unwrap();
    symlink("new", data.join("link")).unwrap();
    fs::create_dir(data.join("folder")).unwrap();
    fs::set_permissions(data.join("empty"), fs::Permissions::from_mode(0o777)).unwrap();
    // Grown by one block of data behind a hole.
    write_at(&data.join("ibdata1"), 400_000, &[9]);
    let footprint = lane.reset().unwrap().footprint().unwrap();
    assert_eq!(footprint, Footprint { files: 6, bytes: 5000 + (400_001 - 400_000 / 4096 * 4096) });
}

pub(crate) fn a_file_rewritten_with_what_it_held_counts_nothing(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let lane = pool.clone_lane("0", &seeded(&ground, &pool)).unwrap();
    let path = lane.path("volume/data").unwrap().join("ibdata1");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    assert!(lane.verify().is_err(), "its time has moved");
    assert_eq!(lane.reset().unwrap().footprint().unwrap(), Footprint::default());
}

pub(crate) fn a_write_that_hides_behind_its_old_time_is_counted(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let lane = pool.clone_lane("0", &seeded(&ground, &pool)).unwrap();
    let path = lane.path("volume/data").unwrap().join("ibdata1");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"sly", 0).unwrap();
    file.set_modified(time).unwrap();
    drop(file);
    assert_eq!(lane.reset().unwrap().footprint().unwrap(), Footprint { files: 1, bytes: 4096 });
}

pub(crate) fn every_kind_of_entry_survives_capture_and_clone(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("layer");
    plant_layer(&from);
    let wanted = {
        // Sockets are not part of a tree.
        fs::remove_file(from.join("run/socket")).unwrap();
        let digest = digest_of(&from).unwrap();
        drop(std::os::unix::net::UnixListener::bind(from.join("run/socket")).unwrap());
        digest
    };
    let mut staging = pool.stage("layers").unwrap();
    staging.capture("layer/db", &from).unwrap();
    assert!(matches!(staging.capture("layer/db", &from), Err(PoolError::TreeExists { .. })));
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    assert_eq!(baseline.trees()[0].tree_digest, wanted);
    baseline.check().unwrap();
    let lane = pool.clone_lane("0", &baseline).unwrap();
    assert_pristine(&lane, "layer/db");
    let tree = lane.path("layer/db").unwrap();
    let whiteout = fs::symlink_metadata(tree.join("whiteout")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
    let time = |path: &Path| fs::symlink_metadata(path).unwrap().modified().unwrap();
    for path in ["", "etc", "etc/passwd", "link", "whiteout", "pipe"] {
        assert_eq!(time(&tree.join(path)), time(&from.join(path)), "{path}");
    }
    assert_layers_attributes(&tree);
    fs::write(tree.join("etc/passwd"), "dirt").unwrap();
    fs::remove_file(tree.join("whiteout")).unwrap();
    let retired = lane.reset().unwrap();
    assert_eq!(retired.footprint().unwrap(), Footprint { files: 2, bytes: 4 });
    assert_pristine(&lane, "layer/db");
}

pub(crate) fn the_names_of_one_file_stay_names_of_one_file(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("links");
    fs::write(from.join("a"), noise(1, 10_000)).unwrap();
    fs::create_dir(from.join("sub")).unwrap();
    fs::hard_link(from.join("a"), from.join("sub/b")).unwrap();
    let mut staging = pool.stage("links").unwrap();
    staging.capture("volume/links", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    assert_eq!((baseline.trees()[0].files, baseline.trees()[0].bytes), (2, 10_000));
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let tree = lane.path("volume/links").unwrap();
    write_at(&tree.join("a"), 0, b"seen by both");
    assert!(fs::read(tree.join("sub/b")).unwrap().starts_with(b"seen by both"));
    // Both names changed, the bytes are there once.
    let retired = lane.reset().unwrap();
    assert_eq!(retired.footprint().unwrap().bytes, 4096);
    // A broken link is a difference, even where all else is alike.
    fs::remove_file(tree.join("sub/b")).unwrap();
    fs::copy(tree.join("a"), tree.join("sub/b")).unwrap();
    let file = File::options().write(true).open(tree.join("sub/b")).unwrap();
    file.set_modified(fs::metadata(tree.join("a")).unwrap().modified().unwrap()).unwrap();
    let sub = fs::metadata(from.join("sub")).unwrap().modified().unwrap();
    File::open(tree.join("sub")).unwrap().set_modified(sub).unwrap();
    assert!(matches!(lane.verify().unwrap_err().change, Change::Attribute { name: "kind", .. }));
}

pub(crate) fn holes_stay_holes(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("sparse");
    let file = File::create(from.join("big")).unwrap();
    file.set_len(20 << 30).unwrap();
    file.write_all_at(b"middle", 10 << 30).unwrap();
    let mut staging = pool.stage("sparse").unwrap();
    // The ground has far less room than the file has length.
    staging.capture("volume/sparse", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let big = lane.path("volume/sparse").unwrap().join("big");
    assert_eq!(fs::metadata(&big).unwrap().len(), 20 << 30);
    assert!(fs::metadata(&big).unwrap().blocks() * 512 < 1 << 20);
    if kind != PoolKind::Overlay {
        // The first write to a file in an overlay copies all of it; ext4 in the ground has no room for that.
        write_at(&big, 15 << 30, b"dirt");
        assert_eq!(lane.reset().unwrap().footprint().unwrap(), Footprint { files: 1, bytes: 4096 });
    }
    lane.verify().unwrap();
}

pub(crate) fn three_hundred_files_like_a_database(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("mysql");
    for index in 0..300u64 {
        let folder = from.join(format!("schema{}", index % 7));
        fs::create_dir_all(&folder).unwrap();
        let pages = if index == 0 { 1024 } else { 1 + usize::try_from(index % 9).unwrap() };
        fs::write(folder.join(format!("t{index}.ibd")), noise(index, pages * 16384)).unwrap();
    }
    let mut staging = pool.stage("mysql").unwrap();
    staging.capture("volume/data", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let data = lane.path("volume/data").unwrap();
    for round in 0..5u64 {
        lane.ready_spare().unwrap();
        for index in [0u64, 7, 100 + round] {
            let path = data.join(format!("schema{}/t{index}.ibd", index % 7));
            write_at(&path, 16384 * (index % 2), &noise(1000 + round, 16384));
        }
        let retired = lane.reset().unwrap();
        lane.verify().unwrap();
        assert_eq!(retired.footprint().unwrap(), Footprint { files: 3, bytes: 3 * 16384 });
        retired.discard().unwrap();
    }
    assert_pristine(&lane, "volume/data");
}

pub(crate) fn the_baseline_stays_what_it_was_while_its_clones_are_written(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let baseline = seeded(&ground, &pool);
    let lanes = ["0", "1"].map(|name| pool.clone_lane(name, &baseline).unwrap());
    for (seed, lane) in lanes.iter().enumerate() {
        let data = lane.path("volume/data").unwrap();
        fs::write(data.join("ibdata1"), noise(50 + seed as u64, 300_000)).unwrap();
        fs::remove_dir_all(data.join("shop")).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
        chown(data.join("auto.cnf"), Some(1), Some(1)).unwrap();
    }
    rustix::fs::sync();
    baseline.check().unwrap();
    for lane in &lanes {
        lane.reset().unwrap().discard().unwrap();
        assert_pristine(lane, "volume/data");
    }
}

pub(crate) fn every_sort_of_tampering_is_named(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("volume");
    plant_volume(&from);
    symlink("ibdata1", from.join("link")).unwrap();
    let mut staging = pool.stage("k").unwrap();
    staging.capture("volume/data", &from).unwrap();
    let lane = pool.clone_lane("0", &staging.publish(serde_json::Value::Null).unwrap()).unwrap();
    let data = lane.path("volume/data").unwrap();
    let time = |path: &Path, at: std::time::SystemTime| {
        File::open(path).unwrap().set_modified(at).unwrap();
    };
    let root_time = fs::metadata(&from).unwrap().modified().unwrap();
    let old = UNIX_EPOCH + Duration::from_secs(1);
    type Tamper<'a> = Box<dyn Fn() + 'a>;
    let tampers: Vec<(&str, &str, Tamper<'_>)> = vec![
        ("aaa", "unexpected", Box::new(|| fs::write(data.join("aaa"), "").unwrap())),
        ("zzz", "unexpected", Box::new(|| fs::write(data.join("zzz"), "").unwrap())),
        ("auto.cnf", "missing", Box::new(|| fs::remove_file(data.join("auto.cnf")).unwrap())),
        (
            "empty",
            "mode",
            Box::new(|| fs::set_permissions(data.join("empty"), fs::Permissions::from_mode(0o600)).unwrap()),
        ),
        ("", "owner", Box::new(|| chown(&data, Some(5), None).unwrap())),
        ("ibdata1", "size", Box::new(|| write_at(&data.join("ibdata1"), 300_000, b"x"))),
        ("shop/orders.ibd", "mtime", Box::new(|| time(&data.join("shop/orders.ibd"), old))),
        (
            "link",
            "target",
            Box::new(|| {
                fs::remove_file(data.join("link")).unwrap();
                symlink("other", data.join("link")).unwrap();
            }),
        ),
        (
            "empty",
            "kind",
            Box::new(|| {
                fs::remove_file(data.join("empty")).unwrap();
                fs::create_dir(data.join("empty")).unwrap();
            }),
        ),
    ];
    for (path, what, tamper) in &tampers {
        lane.verify().unwrap();
        tamper();
        // Whoever adds or removes moves the folder's time as well; that alone is not what is looked for here.
        time(&data, root_time);
        let difference = lane.verify().unwrap_err();
        let found = match &difference.change {
            Change::Missing => "missing",
            Change::Unexpected => "unexpected",
            Change::Attribute { name, .. } => name,
            other => panic!("{other:?}"),
        };
        assert_eq!((difference.path.as_str(), found), (*path, *what), "{difference}");
        assert!(difference.to_string().contains("volume/data"));
        lane.reset().unwrap().discard().unwrap();
    }
}

pub(crate) fn what_is_not_published_leaves_nothing(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("volume");
    plant_volume(&from);
    let mut staging = pool.stage("never").unwrap();
    staging.capture("volume/data", &from).unwrap();
    assert!(staging.capture("volume/none", Path::new("/does/not/exist")).is_err());
    drop(staging);
    assert!(pool.baseline("never").is_none());
    assert_eq!(fs::read_dir(pool.dir().join("staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(pool.dir().join("baselines")).unwrap().count(), 0);
    assert!(matches!(pool.stage(""), Err(PoolError::BadName { .. })));
}

pub(crate) fn a_key_that_exists_keeps_the_existing_baseline(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let first = seeded(&ground, &pool);
    let mut staging = pool.stage("key-1").unwrap();
    let other = ground.outside("other");
    fs::write(other.join("x"), "y").unwrap();
    staging.capture("../../x", &other).unwrap();
    let kept = staging.publish(serde_json::json!({ "why": "late" })).unwrap();
    assert_eq!((kept.meta(), kept.trees()), (first.meta(), first.trees()));
    assert_eq!(fs::read_dir(pool.dir().join("staging")).unwrap().count(), 0);
    assert_eq!(pool.baselines().len(), 1);
}

pub(crate) fn a_used_baseline_cannot_be_removed(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let baseline = seeded(&ground, &pool);
    let lane = pool.clone_lane("0", &baseline).unwrap();
    assert!(matches!(pool.remove("key-1"), Err(PoolError::BaselineInUse { users: 1, .. })));
    let retired = lane.retire().unwrap();
    assert!(matches!(pool.remove("key-1"), Err(PoolError::BaselineInUse { users: 1, .. })));
    retired.discard().unwrap();
    assert!(pool.remove("key-1").unwrap());
    assert!(!pool.remove("key-1").unwrap());
    assert!(matches!(pool.clone_lane("0", &baseline), Err(PoolError::BaselineGone { .. })));
    assert_eq!(fs::read_dir(pool.dir().join("baselines")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(pool.dir().join("trash")).unwrap().count(), 0);
}

pub(crate) fn trash_is_swept_but_not_what_somebody_still_looks_at(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let baseline = seeded(&ground, &pool);
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let kept = lane.reset().unwrap();
    assert_eq!((pool.users("key-1"), pool.sweep_trash().unwrap()), (2, 0));
    assert!(kept.path("volume/data").unwrap().join("ibdata1").exists());
    // Somebody is in it, so that its folder cannot be deleted now.
    let inside = kept.path("volume/data").unwrap().join("busy");
    fs::create_dir(&inside).unwrap();
    rustix::mount::mount("none", &inside, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    let left = kept.path("volume/data").unwrap();
    let discarded = kept.discard();
    let _ = rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::empty());
    if matches!(kind, PoolKind::Overlay | PoolKind::Btrfs) {
        // Its own mounts are taken down, and what is mounted in them; a subvolume goes whole.
        discarded.unwrap();
    } else {
        discarded.unwrap_err();
        assert!(left.exists());
        assert_eq!(pool.sweep_trash().unwrap(), 1);
    }
    assert_eq!((pool.users("key-1"), pool.sweep_trash().unwrap()), (1, 0));
    assert_eq!(fs::read_dir(pool.dir().join("trash")).unwrap().count(), 0);
    lane.verify().unwrap();
}

pub(crate) fn a_tree_restored_elsewhere_is_the_tree(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let from = ground.outside("layer");
    plant_layer(&from);
    let mut staging = pool.stage("layers").unwrap();
    staging.capture("layer/db", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    let near = pool.dir().join("docker/overlay2/0/diff");
    fs::create_dir_all(&near).unwrap();
    for dest in [near, ground.outside("far")] {
        let inode = fs::metadata(&dest).unwrap().ino();
        fs::create_dir_all(dest.join("left/over")).unwrap();
        symlink("/etc", dest.join("etc")).unwrap();
        pool.restore_into(&baseline, "layer/db", &dest).unwrap();
        assert_eq!(digest_of(&dest).unwrap(), baseline.trees()[0].tree_digest);
        assert_eq!(fs::metadata(&dest).unwrap().ino(), inode);
        pool.verify_in(&baseline, "layer/db", &dest).unwrap();
        assert_eq!(pool.footprint_of(&baseline, "layer/db", &dest).unwrap(), Footprint::default());
        fs::write(dest.join("etc/passwd"), noise(9, 6000)).unwrap();
        fs::remove_file(dest.join("pipe")).unwrap();
        let footprint = pool.footprint_of(&baseline, "layer/db", &dest).unwrap();
        assert_eq!(footprint, Footprint { files: 2, bytes: 6000 });
        pool.verify_in(&baseline, "layer/db", &dest).unwrap_err();
        pool.restore_into(&baseline, "layer/db", &dest).unwrap();
        pool.verify_in(&baseline, "layer/db", &dest).unwrap();
    }
    let error = pool.restore_into(&baseline, "layer/no", Path::new("/nowhere")).unwrap_err();
    assert!(error.to_string().contains("it has: layer/db"), "{error}");
}

pub(crate) fn a_lane_has_only_the_trees_that_were_wanted(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let (volume, layer) = (ground.outside("volume"), ground.outside("layer"));
    plant_volume(&volume);
    plant_layer(&layer);
    let mut staging = pool.stage("both").unwrap();
    staging.capture("volume/data", &volume).unwrap();
    staging.capture("layer/db", &layer).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    let names: Vec<_> = baseline.trees().iter().map(|tree| tree.name.as_str()).collect();
    assert_eq!(names, ["layer/db", "volume/data"]);
    let lane = pool.clone_lane_of("0", &baseline, &|tree| tree.starts_with("volume/")).unwrap();
    assert!(lane.path("volume/data").unwrap().join("ibdata1").exists());
    let error = lane.path("layer/db").unwrap_err();
    assert!(error.to_string().ends_with("it has: volume/data"), "{error}");
    fs::write(lane.path("volume/data").unwrap().join("dirt"), "x").unwrap();
    assert_eq!(lane.reset().unwrap().footprint().unwrap(), Footprint { files: 1, bytes: 1 });
    lane.verify().unwrap();
}
