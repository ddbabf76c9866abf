//! How long a reset takes: about 200 files and 290 MB like a seeded MySQL's, on each kind of pool that this machine
//! can offer in DIR (default: a new folder in the current one). `cargo run --release -p andon-snapshot --example speed
//! [DIR]`; needs root.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use andon_snapshot::{LaneClone, Pool, PoolError, PoolKind, PoolOptions};

const ROUNDS: usize = 30;
/// Small tables, and the few big files that hold most of the bytes.
const SMALL_FILES: usize = 185;
const SMALL_BYTES: usize = 112 << 10;
const BIG_FILES: [usize; 5] = [100 << 20, 80 << 20, 48 << 20, 32 << 20, 12 << 20];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "speed.pools".to_owned()));
    let source = base.join("source");
    plant(&source)?;
    println!(
        "{:>8} {:>22} {:>22} {:>10} {:>10} {:>10}",
        "kind", "reset, spare ready", "reset, no spare", "verify", "footprint", "discard"
    );
    for kind in [PoolKind::Reflink, PoolKind::Btrfs, PoolKind::Overlay, PoolKind::Copy] {
        let root = base.join(kind.to_string());
        let options = PoolOptions { kind: Some(kind), image_bytes: Some(4 << 30), ..PoolOptions::default() };
        match Pool::open(&root, options) {
            Ok(pool) => measure(pool, &source)?,
            Err(error) => println!("{kind:>8} {error}"),
        }
    }
    fs::remove_dir_all(&base)?;
    Ok(())
}

fn plant(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir.join("shop"))?;
    let sizes = std::iter::repeat_n(SMALL_BYTES, SMALL_FILES).chain(BIG_FILES);
    for (number, size) in sizes.enumerate() {
        let mut bytes = vec![0; size];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        fs::write(dir.join(format!("shop/{number}.ibd")), bytes)?;
    }
    Ok(())
}

fn measure(pool: Pool, source: &Path) -> Result<(), PoolError> {
    let mut staging = pool.stage("speed")?;
    staging.capture("volume/data", source)?;
    let baseline = staging.publish(serde_json::Value::Null)?;
    let lane = pool.clone_lane("0", &baseline)?;
    let (mut with, mut without, mut verify, mut footprint, mut discard) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        let spare = round % 2 == 0;
        dirty(&lane)?;
        if spare {
            lane.ready_spare()?;
        }
        let start = Instant::now();
        let retired = lane.reset()?;
        if spare { &mut with } else { &mut without }.push(start.elapsed());
        let start = Instant::now();
        lane.verify().expect("a reset is exact");
        verify.push(start.elapsed());
        let start = Instant::now();
        retired.footprint()?;
        footprint.push(start.elapsed());
        let start = Instant::now();
        retired.discard()?;
        discard.push(start.elapsed());
    }
    let spread = |times: &mut Vec<Duration>| {
        let middle = median(times);
        format!("{middle:.2} [{:.2}–{:.2}] ms", ms(times[0]), ms(times[times.len() - 1]))
    };
    println!(
        "{:>8} {:>22} {:>22} {:>7.2} ms {:>7.2} ms {:>7.2} ms",
        pool.kind().to_string(),
        spread(&mut with),
        spread(&mut without),
        median(&mut verify),
        median(&mut footprint),
        median(&mut discard),
    );
    lane.retire()?.discard()?;
    pool.close()
}

/// A page in a big file and one in each of ten small ones.
fn dirty(lane: &LaneClone) -> Result<(), PoolError> {
    let data = lane.path("volume/data")?;
    for number in (SMALL_FILES - 10)..=SMALL_FILES {
        let path = data.join(format!("shop/{number}.ibd"));
        let file = fs::OpenOptions::new().write(true).open(&path).expect("the clone has its files");
        file.write_all_at(&[7; 4096], 16384).expect("the clone can be written");
        file.sync_all().expect("the clone can be synced");
    }
    Ok(())
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    ms(times[times.len() / 2])
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
