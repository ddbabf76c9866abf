//! A process that is killed in the middle of things, and the next one.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use andon_snapshot::{Pool, PoolError, PoolKind, PoolOptions};

use crate::ground::{Ground, plant_volume};

const ROOT: &str = "ANDON_SNAPSHOT_CRASH_ROOT";
const KIND: &str = "ANDON_SNAPSHOT_CRASH_KIND";
/// A pool in `pool.img` rather than in place.
const IMAGE_BYTES: u64 = 330 << 20;

fn options(kind: PoolKind) -> PoolOptions {
    PoolOptions { kind: Some(kind), image_bytes: Some(IMAGE_BYTES), ..PoolOptions::default() }
}

/// A case of its own, and the process that the other cases start and kill: it then finds the pool's place in its
/// environment, and plays the victim.
#[test]
fn a_pool_that_another_process_has_open_is_refused() {
    match (std::env::var_os(ROOT), std::env::var(KIND)) {
        (Some(root), Ok(kind)) => {
            play_the_victim(
                &PathBuf::from(root),
                serde_json::from_value(serde_json::Value::String(kind)).unwrap(),
            );
        }
        _ => kill_one_in(Ground::for_kind(PoolKind::Copy).root(), PoolKind::Copy),
    }
}

fn play_the_victim(root: &Path, kind: PoolKind) {
    let pool = Pool::open(root, options(kind)).unwrap();
    let from = root.join("source");
    plant_volume(&from);
    let mut staging = pool.stage("kept").unwrap();
    staging.capture("volume/data", &from).unwrap();
    let baseline = staging.publish(serde_json::Value::Null).unwrap();
    let lane = pool.clone_lane("0", &baseline).unwrap();
    std::fs::write(lane.path("volume/data").unwrap().join("dirt"), "x").unwrap();
    lane.ready_spare().unwrap();
    let _retired = lane.reset().unwrap();
    lane.ready_spare().unwrap();
    let mut half = pool.stage("half").unwrap();
    half.capture("volume/data", &from).unwrap();
    println!("\nready");
    // Until it is killed: nobody ever writes to its input.
    std::io::stdin().read_exact(&mut [0]).unwrap();
}

fn kill_one_in(root: &Path, kind: PoolKind) {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["crash::a_pool_that_another_process_has_open_is_refused", "--exact", "--nocapture"])
        .env(ROOT, root)
        .env(KIND, kind.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let ready = output.lines().any(|line| line.unwrap() == "ready");
    assert!(ready, "the victim died before its time");
    assert!(matches!(Pool::open(root, options(kind)), Err(PoolError::AlreadyOpen { .. })));
    victim.kill().unwrap();
    victim.wait().unwrap();
}

fn assert_only_the_baseline_is_left(pool: &Pool) {
    for folder in ["staging", "lanes", "trash"] {
        assert_eq!(std::fs::read_dir(pool.dir().join(folder)).unwrap().count(), 0, "{folder}");
    }
    let keys: Vec<_> = pool.baselines().iter().map(|baseline| baseline.key().to_owned()).collect();
    assert_eq!(keys, ["kept"]);
    let baseline = pool.baseline("kept").unwrap();
    baseline.check().unwrap();
    let lane = pool.clone_lane("0", &baseline).unwrap();
    lane.verify().unwrap();
    lane.reset().unwrap().discard().unwrap();
    lane.verify().unwrap();
}

pub(crate) fn a_killed_process_leaves_baselines_and_nothing_else(kind: PoolKind) {
    let ground = Ground::for_kind(kind);
    kill_one_in(ground.root(), kind);
    if kind == PoolKind::Overlay {
        assert!(!ground.mounts().is_empty(), "a kill leaves mounts, or this case shows nothing");
    }
    let pool = ground.open(kind);
    assert_eq!(ground.mounts(), Vec::<PathBuf>::new());
    assert_only_the_baseline_is_left(&pool);
}

#[test]
fn an_image_is_taken_over_after_a_kill_and_mounted_again_after_a_close() {
    let ground = Ground::plain();
    kill_one_in(ground.root(), PoolKind::Reflink);
    // Another crash, while an image was made.
    std::fs::write(ground.root().join("pool.img.new"), "half").unwrap();
    for _ in 0..2 {
        let pool = Pool::open(ground.root(), PoolOptions::default()).unwrap();
        assert_eq!((pool.kind(), pool.in_image()), (PoolKind::Reflink, true));
        assert_eq!(ground.mounts(), [ground.root().join("pool")]);
        assert_only_the_baseline_is_left(&pool);
        pool.close().unwrap();
        assert_eq!(ground.mounts(), Vec::<PathBuf>::new());
    }
    std::fs::write(ground.root().join("pool.img"), vec![0; 1 << 20]).unwrap();
    let error = Pool::open(ground.root(), PoolOptions::default()).unwrap_err();
    assert!(matches!(error, PoolError::ImageDamaged { .. }), "{error:?}");
}
