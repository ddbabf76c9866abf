//! Which kind is chosen, and what is said where a forced one cannot be had.

use std::path::PathBuf;

use andon_snapshot::{LoopFs, Pool, PoolError, PoolKind, PoolOptions};

use crate::ground::{Ground, plant_volume};

const IMAGE_BYTES: u64 = 330 << 20;

fn open(ground: &Ground, options: &PoolOptions) -> Result<Pool, PoolError> {
    Pool::open(ground.root(), PoolOptions { image_bytes: Some(IMAGE_BYTES), ..options.clone() })
}

fn assert_works(ground: &Ground, pool: &Pool) {
    let from = ground.outside("volume");
    plant_volume(&from);
    let mut staging = pool.stage("k").unwrap();
    staging.capture("volume/data", &from).unwrap();
    let lane = pool.clone_lane("0", &staging.publish(serde_json::Value::Null).unwrap()).unwrap();
    std::fs::write(lane.path("volume/data").unwrap().join("dirt"), "x").unwrap();
    lane.reset().unwrap().discard().unwrap();
    lane.verify().unwrap();
    assert!(pool.free_bytes().unwrap() > 1 << 20);
}

#[test]
fn a_file_system_that_clones_is_used_in_place() {
    for kind in [PoolKind::Reflink, PoolKind::Btrfs] {
        let ground = Ground::for_kind(kind);
        let pool = open(&ground, &PoolOptions::default()).unwrap();
        assert_eq!((pool.kind(), pool.in_image()), (kind, false));
        assert_eq!(pool.dir(), ground.root().join("pool"));
    }
}

#[test]
fn a_file_system_that_does_not_clone_gets_an_image_that_does() {
    for (options, kind) in [
        (PoolOptions::default(), PoolKind::Reflink),
        (PoolOptions { loop_fs: LoopFs::Btrfs, ..PoolOptions::default() }, PoolKind::Btrfs),
        (PoolOptions { kind: Some(PoolKind::Btrfs), ..PoolOptions::default() }, PoolKind::Btrfs),
        (
            PoolOptions { kind: Some(PoolKind::Reflink), loop_fs: LoopFs::Btrfs, ..PoolOptions::default() },
            PoolKind::Reflink,
        ),
    ] {
        let ground = Ground::plain();
        let pool = open(&ground, &options).unwrap();
        assert_eq!((pool.kind(), pool.in_image()), (kind, true), "{options:?}");
        assert!(pool.notes().iter().any(|note| note.contains("no reflink") || note.contains("no btrfs")));
        assert_works(&ground, &pool);
        pool.close().unwrap();
        assert_eq!(ground.mounts(), Vec::<PathBuf>::new());
    }
}

#[test]
fn no_room_for_an_image_means_overlay_with_a_note() {
    let ground = Ground::plain();
    let pool =
        Pool::open(ground.root(), PoolOptions { image_bytes: Some(1 << 20), ..PoolOptions::default() });
    let pool = pool.unwrap();
    assert_eq!((pool.kind(), pool.in_image()), (PoolKind::Overlay, false));
    assert!(pool.notes().iter().any(|note| note.contains("at least 320 MiB")), "{:?}", pool.notes());
    assert!(!ground.root().join("pool.img").exists());
    assert_works(&ground, &pool);
}

#[test]
fn a_forced_kind_that_cannot_be_had_names_what_is_missing() {
    let ground = Ground::plain();
    let pool = open(&ground, &PoolOptions::default()).unwrap();
    pool.close().unwrap();
    // The image is XFS.
    let error = open(&ground, &PoolOptions { kind: Some(PoolKind::Btrfs), ..PoolOptions::default() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`btrfs` is not possible") && error.contains("not btrfs"), "{error}");
    let error = open(&ground, &PoolOptions { kind: Some(PoolKind::Copy), ..PoolOptions::default() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("pool.img"), "{error}");
    assert_eq!(ground.mounts(), Vec::<PathBuf>::new());
}

#[test]
fn overlay_on_overlay_is_refused_by_trial() {
    let ground = Ground::plain();
    let dirs = ["lower", "upper", "work", "merged"].map(|name| ground.root().join(name));
    dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let [lower, upper, work, merged] = dirs.each_ref().map(|dir| dir.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    crate::ground::run("mount", &["-t", "overlay", "-o", &options, "overlay", &merged], "mount");
    let options = PoolOptions { kind: Some(PoolKind::Overlay), ..PoolOptions::default() };
    let error = Pool::open(merged.as_ref(), options).unwrap_err();
    assert!(matches!(&error, PoolError::KindImpossible { kind: PoolKind::Overlay, .. }), "{error:?}");
}

#[test]
fn plain_kinds_take_over_from_each_other_and_btrfs_does_not() {
    let ground = Ground::for_kind(PoolKind::Btrfs);
    let pool = ground.open(PoolKind::Copy);
    assert_works(&ground, &pool);
    drop(pool);
    let pool = ground.open(PoolKind::Reflink);
    pool.baseline("k").unwrap().check().unwrap();
    drop(pool);
    let error = open(&ground, &PoolOptions { kind: Some(PoolKind::Btrfs), ..PoolOptions::default() });
    assert!(matches!(error, Err(PoolError::KindChanged { was: PoolKind::Reflink, .. })));
}

#[test]
fn a_pool_that_cannot_be_opened_leaves_no_mount() {
    let ground = Ground::plain();
    let options = PoolOptions { kind: Some(PoolKind::Btrfs), ..PoolOptions::default() };
    let pool = open(&ground, &options).unwrap();
    assert_works(&ground, &pool);
    pool.close().unwrap();
    // btrfs reflinks as well, but this pool's baselines are subvolumes.
    let options = PoolOptions { kind: Some(PoolKind::Reflink), ..PoolOptions::default() };
    assert!(matches!(open(&ground, &options), Err(PoolError::KindChanged { was: PoolKind::Btrfs, .. })));
    assert_eq!(ground.mounts(), Vec::<PathBuf>::new());
}
