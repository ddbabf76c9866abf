//! A full disk, at every step: nothing stays behind, the message says which and why, and after it the pool works on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use andon_snapshot::{Baseline, LaneClone, Pool, PoolError, PoolKind, PoolOptions};

use crate::ground::{Ground, noise, plant_volume, seeded};

/// Takes all room of the ground; gives it back when dropped.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(ground: &Ground) -> Ballast {
        let path = ground.root().join("ballast");
        // A file system keeps some room back until all is synced, and a file needs more room than its bytes.
        for _ in 0..3 {
            let file = File::options().create(true).append(true).open(&path).unwrap();
            let mut at = file.metadata().unwrap().len();
            for piece in [1 << 20, 4096] {
                let bytes = noise(7, piece);
                while file.write_all_at(&bytes, at).is_ok() {
                    at += piece as u64;
                }
            }
            let _ = file.sync_all();
        }
        Ballast(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        rustix::fs::sync();
    }
}

fn count(pool: &Pool, folder: &str) -> usize {
    fs::read_dir(pool.dir().join(folder)).unwrap().count()
}

/// Says that the ground is full, how much is free, and what to do.
fn assert_told(ground: &Ground, error: &PoolError) {
    let said = error.to_string();
    assert!(matches!(error, PoolError::Full { .. }), "{error:?}");
    let root = ground.root().canonicalize().unwrap();
    assert!(said.contains(&format!("the file system at {}", root.display())), "{said}");
    assert!(said.contains(" free") && said.contains("remove baselines"), "{said}");
}

fn publish(pool: &Pool, key: &str, from: &Path) -> Result<Baseline, PoolError> {
    let mut staging = pool.stage(key)?;
    staging.capture("volume/data", from)?;
    staging.publish(serde_json::Value::Null)
}

pub(crate) fn at_every_step_a_full_disk_leaves_nothing_and_the_pool_works_on_after_it(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let baseline = seeded(&ground, &pool);
    let mut archive = Vec::new();
    baseline.export("volume/data", &mut archive).unwrap();
    let (small, big) = (ground.outside("volume"), ground.outside("big"));
    fs::write(big.join("noise"), noise(1, 8 << 20)).unwrap();
    let lane = pool.clone_lane("0", &baseline).unwrap();
    let mut captured = pool.stage("captured").unwrap();
    captured.capture("volume/data", &small).unwrap();
    let mut started = pool.stage("started").unwrap();
    {
        let _ballast = Ballast::fill(&ground);
        // What takes room fails, whichever step it is.
        let error = started.capture("volume/big", &big).unwrap_err();
        assert_told(&ground, &error);
        let outcomes = [
            publish(&pool, "big", &big).map(drop),
            pool.stage("imported").and_then(|mut staging| {
                (0..64).try_for_each(|number| staging.import(&format!("volume/{number}"), &archive[..]))
            }),
        ];
        for outcome in outcomes {
            assert_told(&ground, &outcome.unwrap_err());
        }
        // What takes little may succeed on what a file system keeps for itself; then it is whole.
        let published = captured.publish(serde_json::Value::Null);
        match &published {
            Ok(baseline) => baseline.check().unwrap(),
            Err(error) => assert_told(&ground, error),
        }
        let tries = [pool.clone_lane("1", &baseline).map(drop), lane.ready_spare()];
        for error in tries.into_iter().filter_map(Result::err) {
            assert_told(&ground, &error);
        }
        match lane.reset() {
            Ok(retired) => retired.discard().unwrap(),
            Err(error) => assert_told(&ground, &error),
        }
        if kind == PoolKind::Copy {
            let all: Result<Vec<LaneClone>, _> =
                (0..64).map(|number| pool.clone_lane(&format!("copy-{number}"), &baseline)).collect();
            assert_told(&ground, &all.unwrap_err());
        }
        lane.verify_deep().unwrap();
        baseline.check().unwrap();
        drop(started);
        assert_eq!((count(&pool, "staging"), count(&pool, "lanes")), (0, 1));
        assert!(pool.baseline("big").is_none() && pool.baseline("imported").is_none());
        assert_eq!(count(&pool, "baselines"), pool.baselines().len());
    }
    lane.reset().unwrap().discard().unwrap();
    lane.verify_deep().unwrap();
    publish(&pool, "big", &big).unwrap().check().unwrap();
    publish(&pool, "captured", &small).unwrap().check().unwrap();
    pool.clone_lane("1", &baseline).unwrap().verify_deep().unwrap();
    assert_eq!(pool.sweep_trash().unwrap(), 0);
    assert_eq!((count(&pool, "staging"), count(&pool, "trash"), count(&pool, "baselines")), (0, 0, 3));
    drop(lane);
    assert_eq!(ground.mounts(), Vec::<PathBuf>::new());
}

pub(crate) fn a_baseline_can_be_removed_from_a_full_disk(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    let pool = ground.open(kind);
    let kept = seeded(&ground, &pool);
    let big = ground.outside("big");
    fs::write(big.join("noise"), noise(1, 40 << 20)).unwrap();
    publish(&pool, "big", &big).unwrap();
    let _ballast = Ballast::fill(&ground);
    assert!(pool.free_bytes().unwrap() < 20 << 20);
    assert!(pool.remove("big").unwrap());
    assert!(pool.free_bytes().unwrap() > 20 << 20, "{:?}", pool.space());
    kept.check().unwrap();
    assert_eq!((count(&pool, "baselines"), count(&pool, "trash")), (1, 0));
}

#[test]
fn a_disk_without_inodes_is_told_as_that() {
    let ground =
        Ground::sized(64 << 20, "mkfs.ext4", &["-q", "-O", "^has_journal", "-N", "256"], "e2fsprogs");
    let options = PoolOptions { kind: Some(PoolKind::Copy), ..PoolOptions::default() };
    let pool = Pool::open(ground.root(), options).unwrap();
    let from = ground.outside("volume");
    plant_volume(&from);
    let baseline = publish(&pool, "kept", &from).unwrap();
    let many = ground.outside("many");
    for number in 0..300 {
        fs::write(many.join(number.to_string()), "").unwrap();
    }
    let mut staging = pool.stage("many").unwrap();
    // While it fails there are none left; what was made is removed before the error is seen.
    let error = staging.capture("volume/many", &many).unwrap_err();
    drop(staging);
    let said = error.to_string();
    assert!(matches!(error, PoolError::Full { .. }), "{error:?}");
    assert!(said.contains("has no inodes left") && said.contains("give it more inodes"), "{said}");
    assert!(pool.space().unwrap().inodes_free.unwrap() > 100);
    assert_eq!(count(&pool, "staging"), 0);
    pool.clone_lane("0", &baseline).unwrap().verify_deep().unwrap();
}
