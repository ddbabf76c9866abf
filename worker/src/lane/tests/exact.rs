//! Stands that are not exact: seen, told, made anew.

use andon_proto::{Congruence, Inexact};

use super::*;

/// Changes a file's content and nothing that stat tells.
fn rot(file: &Path) {
    let was = std::fs::metadata(file).unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[0] ^= 1;
    std::fs::write(file, bytes).unwrap();
    std::fs::File::options().write(true).open(file).unwrap().set_modified(was.modified().unwrap()).unwrap();
}

/// The files of this name beneath a folder.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, name));
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    found
}

fn all_told(bench: &mut Bench) -> Vec<Inexact> {
    std::iter::from_fn(|| bench.told.try_recv().ok()).collect()
}

#[tokio::test]
async fn a_rebase_that_is_not_exact_is_told_and_the_lane_is_rebuilt() {
    let mut bench = Bench::checking(&Arc::new(FakeFarm::default()), Some(Driver::Restart), 2).await;
    let seeded = layer(bench.dir.path(), "andon-build-db").join("seeded");
    bench.engine.on_exec(move |_, spec| {
        if spec.argv.last().is_some_and(|command| command == "seed it") {
            std::fs::write(&seeded, "rows").unwrap();
        }
        Script::default()
    });
    let key = bench.baseline().await;
    // Where stat tells of a change, all of the layer is put back.
    bench.engine.on_start(|_| None);
    let own = layer(bench.dir.path(), "andon-lane0-db");
    bench.unit(&key).await.0.unwrap();
    bench.hands.settle(0).await.unwrap();
    bench.unit(&key).await.0.unwrap();
    // As a test would that hides what it did from stat.
    rot(&own.join("seeded"));
    bench.engine.clear_calls();
    assert_eq!(bench.hands.settle(0).await.unwrap().baseline_key, key);
    let told = all_told(&mut bench);
    assert_eq!(told.len(), 1, "{told:#?}");
    let first = &told[0];
    assert_eq!((first.lane, first.run, first.suite.as_str(), first.deep), (0, 1, "s", true));
    assert_eq!((first.baseline_key.as_str(), first.driver.as_str()), (key.as_str(), "restart"));
    assert_eq!((first.parts[0].r#where.as_str(), first.parts[0].what.as_str()), ("layer/db", "seeded"));
    assert_eq!(bench.calls("create andon-lane0-db"), 1, "not tried again, but rebuilt");
    assert_eq!(std::fs::read_to_string(own.join("seeded")).unwrap(), "rows");
    let (ended, results) = bench.unit(&key).await;
    ended.unwrap();
    assert_eq!(results[0].outcome(), Outcome::Passed);
    assert!(all_told(&mut bench).is_empty());
}

#[tokio::test]
async fn a_baseline_that_rots_in_the_pool_is_given_up_and_fetched_anew() {
    let farm = Arc::new(FakeFarm::default());
    let mut bench = Bench::checking(&farm, Some(Driver::Restart), 1).await;
    let ready = bench.hands.prepare_baseline(1, &spec(), &bench.notices).await.unwrap();
    let manifest = ready.manifest.unwrap();
    farm.published.lock().unwrap().push(manifest.clone());
    let key = manifest.key;
    bench.unit(&key).await.0.unwrap();
    let own = layer(bench.dir.path(), "andon-lane0-db");
    let in_pool = files(&bench.dir.path().join("pool"), "log");
    assert_eq!(in_pool.len(), 1, "{in_pool:?}");
    rot(&in_pool[0]);
    // What is put back comes from there.
    std::fs::write(own.join("log"), "by a test").unwrap();
    let settled = bench.hands.settle(0).await.unwrap();
    assert_eq!(settled.baseline_key, "", "nothing stands on what is damaged");
    let told = all_told(&mut bench);
    let how: Vec<_> = told.iter().map(|one| one.driver.as_str()).collect();
    assert_eq!(how, ["restart", "raise"]);
    let (ended, results) = bench.unit(&key).await;
    ended.unwrap();
    assert_eq!(results[0].outcome(), Outcome::Passed);
    assert_eq!(farm.fetched.lock().unwrap().len(), 1, "the baseline's one tree");
    assert_eq!(std::fs::read_to_string(own.join("log")).unwrap(), "started");
    assert_eq!(bench.hands.settle(0).await.unwrap().baseline_key, key);
    assert!(all_told(&mut bench).is_empty());
}

/// A specification with a proof, and an engine on which it prints what the test says.
fn proving(bench: &Bench, prints: impl Fn(&str) -> Script + Send + 'static) -> RunSpec {
    bench.engine.on_exec(move |container, exec| match exec.argv.last().map(String::as_str) {
        Some("prove it") => prints(container),
        _ => Script::default(),
    });
    let mut spec = spec();
    let (service, run) = ("db".to_owned(), "prove it".to_owned());
    let proofs = vec![andon_proto::Proof { service, run, only_reads: false }];
    spec.baseline = Some(BaselineSpec { proofs, ..spec.baseline.unwrap() });
    spec
}

#[tokio::test]
async fn a_proof_that_two_fresh_stacks_print_differently_is_refused_by_its_line() {
    let farm = Arc::new(FakeFarm::default());
    let bench = Bench::new(&farm, None).await;
    let spec = proving(&bench, |container| Script::prints(&format!("rows 7\non {container}\n")));
    let failure = bench.hands.prepare_baseline(1, &spec, &bench.notices).await.unwrap_err();
    assert_eq!(failure.class, Class::Baseline);
    for part in ["the proof of `db`", "line 2: `on andon-lanecheck_1-db`, and was `on andon-lanecheck-db`"] {
        assert!(failure.reason.contains(part), "{part:?} is not in {}", failure.reason);
    }
    assert!(farm.blobs.lock().unwrap().is_empty());
    assert!(bench.engine.containers().is_empty() && bench.engine.networks().is_empty());
}

#[tokio::test]
async fn a_proof_that_fails_or_prints_too_much_is_refused_by_name() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), None).await;
    let fails = Script { stderr: "no such table\n".to_owned(), exit_code: 1, ..Script::default() };
    let spec = proving(&bench, move |_| fails.clone());
    let failure = bench.hands.prepare_baseline(1, &spec, &bench.notices).await.unwrap_err();
    assert_eq!(failure.class, Class::Baseline);
    assert!(failure.reason.contains("exit code 1: no such table"), "{}", failure.reason);
    let spec = proving(&bench, |_| Script::prints(&"x".repeat(300 << 10)));
    let failure = bench.hands.prepare_baseline(1, &spec, &bench.notices).await.unwrap_err();
    assert!(failure.reason.contains("more than 256 KiB"), "{}", failure.reason);
}

#[tokio::test]
async fn a_server_that_is_to_be_rewound_is_warmed_by_a_proof_that_only_reads() {
    for only_reads in [false, true] {
        let bench = Bench::checking(&Arc::new(FakeFarm::default()), Some(Driver::Rewind), 0).await;
        let warmed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&warmed);
        let mut spec = proving(&bench, move |container| {
            let is_lane = !container.contains("lanecheck");
            counted.fetch_add(usize::from(is_lane), std::sync::atomic::Ordering::SeqCst);
            Script::prints("rows 7\n")
        });
        spec.baseline.as_mut().unwrap().proofs[0].only_reads = only_reads;
        let manifest = bench.hands.prepare_baseline(1, &spec, &bench.notices).await.unwrap().manifest;
        let (sender, mut results) = mpsc::channel(8);
        let tests = vec![TestCase { attempt: 1, id: "a test".to_owned() }];
        let (key, cancel) = (manifest.unwrap().key, CancellationToken::new());
        bench.hands.execute(0, 1, &spec, "s", &key, tests, sender, cancel).await.unwrap();
        assert!(results.recv().await.is_some());
        assert_eq!(warmed.load(std::sync::atomic::Ordering::SeqCst), usize::from(only_reads));
    }
}

#[tokio::test]
async fn a_stand_that_does_not_print_what_its_baseline_keeps_is_told_and_made_anew() {
    let mut bench = Bench::checking(&Arc::new(FakeFarm::default()), Some(Driver::Restart), 2).await;
    let is_wrong = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let wrong = Arc::clone(&is_wrong);
    let spec = proving(&bench, move |_| {
        let rows = if wrong.swap(false, std::sync::atomic::Ordering::SeqCst) { 8 } else { 7 };
        Script::prints(&format!("users 1\nrows {rows}\n"))
    });
    let manifest = bench.hands.prepare_baseline(1, &spec, &bench.notices).await.unwrap().manifest.unwrap();
    assert_eq!((manifest.proofs.len(), manifest.proofs[0].service.as_str()), (1, "db"));
    let key = manifest.key;
    let unit = async |bench: &Bench| {
        let (sender, mut results) = mpsc::channel(8);
        let tests = vec![TestCase { attempt: 1, id: "a test".to_owned() }];
        let cancel = CancellationToken::new();
        bench.hands.execute(0, 1, &spec, "s", &key, tests, sender, cancel).await.unwrap();
        assert!(results.recv().await.is_some());
        bench.hands.settle(0).await.unwrap().baseline_key
    };
    for _ in 0..4 {
        assert_eq!(unit(&bench).await, key);
    }
    assert!(all_told(&mut bench).is_empty(), "it held twice");
    assert_eq!(unit(&bench).await, key);
    is_wrong.store(true, std::sync::atomic::Ordering::SeqCst);
    bench.engine.clear_calls();
    assert_eq!(unit(&bench).await, key);
    let told = all_told(&mut bench);
    assert_eq!(told.len(), 1, "{told:#?}");
    let part = &told[0].parts[0];
    assert_eq!((part.r#where.as_str(), part.what.as_str()), ("proof/db", "prove it"));
    assert_eq!(part.difference, "line 2: `rows 8`, and was `rows 7`");
    assert_eq!(bench.calls("exec andon-lane0-db sh -c prove it"), 2, "the one made anew had to prove itself");
    let last = bench.engine.calls().into_iter().rfind(|call| call.contains("andon-lane0-db"));
    assert!(!last.unwrap().starts_with("exec"), "it was put back after its proof");
}

#[tokio::test]
async fn what_waits_is_verified_and_stays_pristine_and_what_is_at_work_is_left_alone() {
    for driver in [Driver::Recreate, Driver::Restart, Driver::Standby] {
        let mut bench = Bench::new(&Arc::new(FakeFarm::default()), Some(driver)).await;
        let key = bench.baseline().await;
        bench.unit(&key).await.0.unwrap();
        let limit = std::time::Duration::from_secs(60);
        let busy = bench.hands.verify(&key, limit).await;
        assert_eq!(busy.lanes[0].congruence(), Congruence::Busy, "it was not put back yet");
        assert_eq!(busy.baselines[0].congruence(), Congruence::Same);
        bench.hands.settle(0).await.unwrap();
        let idle = bench.hands.verify("", limit).await;
        assert_eq!((idle.baselines.len(), idle.lanes.len()), (1, 1));
        assert_eq!(idle.lanes[0].congruence(), Congruence::Same, "{:?}", idle.lanes[0]);
        assert!(idle.lanes[0].stands >= 1);
        let other = bench.hands.verify(&"0".repeat(64), limit).await;
        assert!(other.baselines.is_empty() && other.lanes.is_empty());
        bench.engine.clear_calls();
        bench.unit(&key).await.0.unwrap();
        // With `standby` the stand of the unit before may be on its way back.
        let waited = bench.calls("start andon-lane0-db") == 0 || driver == Driver::Standby;
        assert!(waited, "{driver}: it waited pristine");
        assert!(all_told(&mut bench).is_empty());
    }
}

#[tokio::test]
async fn a_damaged_baseline_is_named_given_up_and_nothing_stands_on_it_any_more() {
    let farm = Arc::new(FakeFarm::default());
    let bench = Bench::new(&farm, Some(Driver::Restart)).await;
    let ready = bench.hands.prepare_baseline(1, &spec(), &bench.notices).await.unwrap();
    let manifest = ready.manifest.unwrap();
    farm.published.lock().unwrap().push(manifest.clone());
    let key = manifest.key;
    bench.unit(&key).await.0.unwrap();
    bench.hands.settle(0).await.unwrap();
    let in_pool = files(&bench.dir.path().join("pool"), "log");
    std::fs::write(&in_pool[0], "altered").unwrap();
    let limit = std::time::Duration::from_secs(60);
    let verified = bench.hands.verify(&key, limit).await;
    let baseline = &verified.baselines[0];
    assert_eq!(baseline.congruence(), Congruence::Differs);
    assert_eq!((baseline.parts[0].r#where.as_str(), baseline.parts[0].what.as_str()), ("layer/db", "log"));
    assert_ne!(baseline.trees[0].digest, manifest.trees[0].tree_digest);
    assert_eq!(verified.lanes[0].congruence(), Congruence::Differs);
    assert!(verified.lanes[0].note.contains("taken down"), "{:?}", verified.lanes[0]);
    bench.unit(&key).await.0.unwrap();
    assert_eq!(bench.hands.settle(0).await.unwrap().baseline_key, key);
    let again = bench.hands.verify(&key, limit).await;
    assert_eq!(again.baselines[0].congruence(), Congruence::Same, "it was fetched anew");
    assert_eq!(again.lanes[0].congruence(), Congruence::Same);
}
