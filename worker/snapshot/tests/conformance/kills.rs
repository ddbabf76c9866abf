//! A process that is killed at any moment of its work, again and again; and what the next one finds.
//!
//! ANDON_SNAPSHOT_KILLS sets how many times for each pool; the moments come from ANDON_SNAPSHOT_KILL_SEED.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use andon_snapshot::{LoopFs, Pool, PoolError, PoolKind, PoolOptions};

use crate::ground::{Ground, noise, plant_volume};

const ROOT: &str = "ANDON_SNAPSHOT_KILLS_ROOT";
const PLACE: &str = "ANDON_SNAPSHOT_KILLS_PLACE";
const KILLS_DEFAULT: u64 = 8;
/// A victim works for up to this long, which is several rounds.
const LIFE_MAX: Duration = Duration::from_millis(120);
const IMAGE_BYTES: u64 = 330 << 20;

/// Where the pool of a case is: kind by kind in place, and in images.
const PLACES: [(&str, Option<PoolKind>, LoopFs); 5] = [
    ("reflink", Some(PoolKind::Reflink), LoopFs::Xfs),
    ("btrfs", Some(PoolKind::Btrfs), LoopFs::Btrfs),
    ("overlay", Some(PoolKind::Overlay), LoopFs::Xfs),
    ("copy", Some(PoolKind::Copy), LoopFs::Xfs),
    ("image", None, LoopFs::Xfs),
];

fn options(place: &str) -> PoolOptions {
    let (_, kind, loop_fs) = PLACES.into_iter().find(|(name, ..)| *name == place).unwrap();
    PoolOptions { kind, loop_fs, image_bytes: Some(IMAGE_BYTES), ..PoolOptions::default() }
}

/// Does everything that a pool is for, without end.
fn work(root: &Path, place: &str) -> Result<(), PoolError> {
    let pool = Pool::open(root, options(place))?;
    let from = root.join("source");
    println!("\nready");
    for round in 0u64.. {
        let key = format!("key-{}", round % 5);
        pool.remove(&key)?;
        let mut staging = pool.stage(&key)?;
        staging.capture("volume/data", &from)?;
        let baseline = staging.publish(serde_json::Value::Null)?;
        let mut archive = Vec::new();
        baseline.export("volume/data", &mut archive)?;
        let mut staging = pool.stage(&format!("{key}-copy"))?;
        staging.import("volume/data", &archive[..])?;
        pool.remove(&format!("{key}-copy"))?;
        staging.publish(serde_json::Value::Null)?;
        let lane = pool.clone_lane("0", &baseline)?;
        for step in 0..3 {
            let path = lane.path("volume/data")?.join("ibdata1");
            std::fs::write(path, noise(step, 100_000)).unwrap();
            lane.ready_spare()?;
            let retired = lane.reset()?;
            retired.changes(10)?;
            retired.discard()?;
        }
        lane.retire()?.discard()?;
    }
    Ok(())
}

/// A case of its own, and the victim of the others.
#[test]
fn a_pool_survives_kills_at_any_moment() {
    if let (Some(root), Ok(place)) = (std::env::var_os(ROOT), std::env::var(PLACE)) {
        work(&PathBuf::from(root), &place).unwrap();
        return;
    }
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    };
    let kills = number("ANDON_SNAPSHOT_KILLS", KILLS_DEFAULT);
    let seed = number("ANDON_SNAPSHOT_KILL_SEED", u64::from(std::process::id()));
    println!("ANDON_SNAPSHOT_KILL_SEED={seed} ANDON_SNAPSHOT_KILLS={kills}");
    for (place, kind, _) in PLACES {
        let ground = kind.map_or_else(Ground::plain, Ground::for_kind);
        let source = ground.root().join("source");
        plant_volume(&source);
        let mut published = 0;
        for kill in 0..kills {
            kill_one(ground.root(), place, seed + kill);
            published += examine(&ground, place);
        }
        assert!(published > 0, "{place}: no victim ever came to publish anything");
        // The loop device goes with the mount that the last look closed.
        assert_eq!(ground.mounts(), Vec::<PathBuf>::new(), "{place}");
    }
}

/// Starts a victim and kills it after a random part of its life.
fn kill_one(root: &Path, place: &str, seed: u64) {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["kills::a_pool_survives_kills_at_any_moment", "--exact", "--nocapture"])
        .env(ROOT, root)
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(victim.stdout.take().unwrap()).lines();
    assert!(output.any(|line| line.unwrap() == "ready"), "{place}: a victim died by itself");
    let chance = u16::from_le_bytes(noise(seed, 2).try_into().unwrap());
    let until = Instant::now() + LIFE_MAX * u32::from(chance) / u32::from(u16::MAX);
    while Instant::now() < until {
        assert_eq!(victim.try_wait().unwrap(), None, "{place}: a victim died by itself");
        std::thread::yield_now();
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
}

/// Everything is as it should be; how many baselines there are.
fn examine(ground: &Ground, place: &str) -> usize {
    // A program that the victim had started may hold its lock for the moment it still lives.
    let deadline = Instant::now() + Duration::from_secs(30);
    let pool = loop {
        match Pool::open(ground.root(), options(place)) {
            Err(PoolError::AlreadyOpen { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => break opened.unwrap_or_else(|error| panic!("{place}: {error}")),
        }
    };
    for folder in ["staging", "lanes", "trash"] {
        assert_eq!(std::fs::read_dir(pool.dir().join(folder)).unwrap().count(), 0, "{place} {folder}");
    }
    let baselines = pool.baselines();
    assert_eq!(std::fs::read_dir(pool.dir().join("baselines")).unwrap().count(), baselines.len(), "{place}");
    for baseline in &baselines {
        baseline.check().unwrap();
        let lane = pool.clone_lane("look", baseline).unwrap();
        lane.verify_deep().unwrap();
    }
    let own = usize::from(pool.in_image());
    assert_eq!(ground.mounts().len(), own, "{place}: {:?}", ground.mounts());
    pool.close().unwrap();
    assert_eq!(ground.mounts(), Vec::<PathBuf>::new(), "{place}");
    baselines.len()
}
