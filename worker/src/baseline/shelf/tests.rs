//! The policy at work on a real image that is nearly full. Needs root, loop devices and xfsprogs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use andon_snapshot::PoolOptions;

use super::*;
use crate::link::{Coordinator, FarmClient};

const MIB: usize = 1 << 20;
const IMAGE_BYTES: u64 = 400 << 20;
const DAY: Duration = Duration::from_secs(86_400);

fn key(number: u32) -> String {
    format!("{number:064x}")
}

/// Bytes that take their room.
fn plant(dir: &Path, seed: u32, mib: usize) {
    let mut bytes = vec![0; mib * MIB];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    std::fs::write(dir.join("data"), bytes).unwrap();
}

struct Bench {
    shelf: Shelf,
    from: tempfile::TempDir,
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = root.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let options = PoolOptions {
            kind: Some(andon_snapshot::PoolKind::Reflink),
            image_bytes: Some(IMAGE_BYTES),
            image_bytes_max: Some(IMAGE_BYTES),
            ..PoolOptions::default()
        };
        let pool = Pool::open(&root.path().join("pool"), options).unwrap();
        // Nobody asks it.
        let farm = FarmClient::new(&Coordinator::new("unix:///nowhere/at.sock", "token").unwrap());
        let shelf = Shelf {
            pool,
            farm: Arc::new(farm),
            registry: None,
            scratch: folder("scratch"),
            downloads: folder("downloads"),
            manifests: folder("manifests"),
        };
        Bench { shelf, from: tempfile::tempdir().unwrap(), root }
    }

    /// A baseline of 40 MiB.
    fn publish(&self, number: u32) -> Baseline {
        plant(self.from.path(), number, 40);
        let mut staging = self.shelf.pool.stage(&key(number)).unwrap();
        staging.capture("volume/data", self.from.path()).unwrap();
        staging.publish(serde_json::Value::Null).unwrap()
    }

    /// The same with its manifest, used so long ago.
    fn shelve(&self, number: u32, idle: Duration) -> Baseline {
        let baseline = self.publish(number);
        self.shelf.keep(&BaselineManifest { key: key(number), ..BaselineManifest::default() }).unwrap();
        let file = std::fs::File::open(self.shelf.manifest_file(&key(number)).unwrap()).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::unix_ms());
        file.set_modified(now - idle).unwrap();
        baseline
    }

    fn keys(&self) -> Vec<u32> {
        let all = self.shelf.pool.baselines();
        all.iter().map(|baseline| u32::from_str_radix(baseline.key(), 16).unwrap()).collect()
    }

    fn close(self) {
        let Self { shelf, root, .. } = self;
        shelf.pool.close().unwrap();
        root.close().unwrap();
    }
}

#[tokio::test]
async fn on_a_full_image_the_least_recently_used_go_and_never_one_that_is_stood_on_or_built() {
    let bench = Bench::new();
    let stood_on = bench.shelve(1, DAY * 30);
    bench.shelve(2, DAY * 3);
    bench.shelve(3, DAY * 9);
    bench.shelve(4, DAY);
    // Without a manifest: it is being built.
    bench.publish(5);
    let lane = bench.shelf.pool.clone_lane("0", &stood_on).unwrap();
    assert_eq!(bench.shelf.tend(None).await.unwrap(), Collected::default());

    let free = bench.shelf.pool.free_bytes().unwrap();
    // Two go, the third may stay.
    let failure = bench.shelf.make_room(free).await.unwrap_err();
    assert_eq!(bench.keys(), [1, 4, 5]);
    assert!(
        failure.reason.contains("MB are needed") && failure.reason.contains("ANDON_POOL_MAX_GIB"),
        "{failure:?}"
    );
    bench.shelf.make_room(2 * free).await.unwrap_err();
    assert_eq!(bench.keys(), [1, 5]);
    bench.shelve(2, DAY * 3);
    bench.shelve(3, DAY * 9);
    bench.shelve(4, DAY);
    let free = bench.shelf.pool.free_bytes().unwrap();
    // The marks of so small an image are a tenth and a fifth of it: 40 and 80 MiB.
    plant(bench.shelf.pool.dir(), 9, usize::try_from(free / MIB as u64).unwrap() - 60);
    assert_eq!(bench.shelf.tend(None).await.unwrap(), Collected::default());
    plant(bench.from.path(), 9, 30);
    std::fs::copy(bench.from.path().join("data"), bench.shelf.pool.dir().join("more")).unwrap();
    let collected = bench.shelf.tend(None).await.unwrap();
    assert_eq!((collected, bench.keys()), (Collected { unused: 0, for_space: 2 }, vec![1, 4, 5]));
    assert!(bench.shelf.manifest_file(&key(3)).is_some_and(|file| !file.exists()));
    lane.verify_deep().unwrap();
    drop(lane);
    bench.close();
}

#[tokio::test]
async fn what_was_not_used_for_days_goes_though_there_is_room() {
    let bench = Bench::new();
    let stood_on = bench.shelve(1, DAY * 30);
    bench.shelve(2, DAY * 13);
    bench.shelve(3, DAY * 15);
    bench.publish(4);
    let lane = bench.shelf.pool.clone_lane("0", &stood_on).unwrap();
    assert_eq!(bench.shelf.tend(None).await.unwrap(), Collected::default());
    let collected = bench.shelf.tend(Some(DAY * 14)).await.unwrap();
    assert_eq!((collected, bench.keys()), (Collected { unused: 1, for_space: 0 }, vec![1, 2, 4]));
    // Once its lane is gone it goes as well; one that is used again stays.
    drop(lane);
    bench.shelf.touch(&key(1));
    assert_eq!(bench.shelf.tend(Some(DAY * 14)).await.unwrap(), Collected::default());
    let collected = bench.shelf.tend(Some(DAY * 5)).await.unwrap();
    assert_eq!((collected.unused, bench.keys()), (1, vec![1, 4]));
    bench.close();
}
