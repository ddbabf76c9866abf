//! Baselines and lanes with a real pool, on an engine in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use andon_proto::work_failed::Class;
use andon_proto::{
    BaselineManifest, BaselineSpec, CommandRunner, Image, Outcome, RunSpec, Service, Stack, Suite, TestCase,
    TestResult, image, suite,
};
use andon_snapshot::{Pool, PoolKind, PoolOptions};
use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::fake::{FakeEngine, Script};
use crate::engine::{EngineError, ImageInfo, NetworkMode};
use crate::hands::{
    Driver, Farm, FarmError, Hands, HandsOptions, ImageSource, Notices, ResolvedImage, WorkFailure,
};
use crate::host::Pressure;
use crate::registry::Registry;
use crate::runner::UnitNews;

mod exact;
mod kept;
mod refit;
mod registry;
mod standby;
mod steps;

/// A farm in memory.
#[derive(Debug, Default)]
struct FakeFarm {
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    published: Mutex<Vec<BaselineManifest>>,
    /// Digests of what was fetched.
    fetched: Mutex<Vec<String>>,
}

#[async_trait]
impl Farm for FakeFarm {
    async fn find_baseline(&self, key: &str) -> Result<Option<BaselineManifest>, FarmError> {
        let published = self.published.lock().unwrap();
        Ok(published.iter().find(|manifest| manifest.key == key).cloned())
    }

    async fn related_baselines(
        &self,
        root_key: &str,
        project: &str,
    ) -> Result<Vec<BaselineManifest>, FarmError> {
        let published = self.published.lock().unwrap().clone();
        let related = |one: &BaselineManifest| one.root_key == root_key && one.project == project;
        Ok(published.into_iter().filter(related).collect())
    }

    async fn has_blob(&self, digest: &str) -> Result<bool, FarmError> {
        Ok(self.blobs.lock().unwrap().contains_key(digest))
    }

    async fn put_blob(&self, file: &Path) -> Result<String, FarmError> {
        let bytes = std::fs::read(file).unwrap();
        let digest = blake3::hash(&bytes).to_hex().to_string();
        self.blobs.lock().unwrap().insert(digest.clone(), bytes);
        Ok(digest)
    }

    async fn resume_blob(&self, digest: &str, part: &Path) -> Result<(), FarmError> {
        let _ = std::fs::remove_file(part);
        self.get_blob(digest, part).await
    }

    async fn get_blob(&self, digest: &str, into: &Path) -> Result<(), FarmError> {
        let blobs = self.blobs.lock().unwrap();
        let bytes = blobs.get(digest).ok_or_else(|| FarmError::NoBlob(digest.to_owned()))?;
        std::fs::write(into, bytes).unwrap();
        self.fetched.lock().unwrap().push(digest.to_owned());
        Ok(())
    }
}

/// Every reference is its own id.
#[derive(Debug)]
struct FakeImages;

#[async_trait]
impl ImageSource for FakeImages {
    async fn resolve(&self, image: &Image, _: &Path, _: &Notices) -> Result<ResolvedImage, WorkFailure> {
        match &image.source {
            Some(image::Source::Reference(name)) => {
                Ok(ResolvedImage { id: name.clone(), reference: name.clone(), build_key: String::new() })
            }
            _ => Err(WorkFailure::baseline("no builds here")),
        }
    }
}

/// Memory for many stands, and processors for two: how many there are does not depend on the machine of the test.
const TWO_STANDS: Pressure =
    Pressure { available_bytes: 64 << 30, cpu_waited: Some(100.0), memory_waited: Some(0.0) };

struct Bench {
    dir: tempfile::TempDir,
    engine: Arc<FakeEngine>,
    pool: Pool,
    hands: Hands,
    notices: Notices,
    told: mpsc::Receiver<andon_proto::Inexact>,
}

/// Where the fake keeps a container's own files.
fn layer(dir: &Path, container: &str) -> PathBuf {
    dir.join("layers").join(container)
}

impl Bench {
    async fn new(farm: &Arc<FakeFarm>, driver: Option<Driver>) -> Self {
        Self::with(farm, driver, 0, None).await
    }

    /// Compares every byte each so many rebases.
    async fn checking(farm: &Arc<FakeFarm>, driver: Option<Driver>, deep_every: u32) -> Self {
        Self::with(farm, driver, deep_every, None).await
    }

    async fn with_registry(farm: &Arc<FakeFarm>, driver: Option<Driver>, registry: Option<Registry>) -> Self {
        Self::with(farm, driver, 0, registry).await
    }

    async fn with(
        farm: &Arc<FakeFarm>,
        driver: Option<Driver>,
        deep_every: u32,
        registry: Option<Registry>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = FakeEngine::new();
        for name in ["db", "tests"] {
            engine.add_image(name, ImageInfo { id: name.to_owned(), ..ImageInfo::default() });
        }
        engine.keep_layers_in(dir.path().join("layers"));
        let path = dir.path().to_owned();
        engine.on_start(move |spec| {
            if spec.name.ends_with("-db") {
                std::fs::write(layer(&path, &spec.name).join("log"), "started").unwrap();
            }
            None
        });
        let kind = Some(PoolKind::Copy);
        let pool =
            Pool::open(&dir.path().join("pool"), PoolOptions { kind, ..PoolOptions::default() }).unwrap();
        let (inexact, told) = mpsc::channel(16);
        let options = HandsOptions {
            engine: engine.clone(),
            pool: pool.clone(),
            images: Arc::new(FakeImages),
            farm: farm.clone(),
            registry,
            data_dir: dir.path().join("data"),
            lanes: 1,
            driver,
            deep_every,
            pressure: || TWO_STANDS,
            worker: "w".to_owned(),
            inexact,
            docker_socket: None,
        };
        let hands = Hands::start(options).await.unwrap();
        let (notices, _) = mpsc::channel(1);
        Self { dir, engine, pool, hands, notices, told }
    }

    async fn baseline(&self) -> String {
        let ready = self.hands.prepare_baseline(1, &spec(), &self.notices).await.unwrap();
        ready.manifest.unwrap().key
    }

    /// Runs a unit of one test and answers with how the test ended.
    async fn unit(&self, key: &str) -> (Result<(), WorkFailure>, Vec<TestResult>) {
        self.unit_of(&spec(), key).await
    }

    async fn unit_of(&self, spec: &RunSpec, key: &str) -> (Result<(), WorkFailure>, Vec<TestResult>) {
        let (sender, mut results) = mpsc::channel(8);
        let tests = vec![TestCase { attempt: 1, id: "a test".to_owned() }];
        let cancel = CancellationToken::new();
        let ended = self.hands.execute(0, 1, spec, "s", key, tests, sender, cancel).await;
        let mut all = Vec::new();
        while let Some(news) = results.recv().await {
            if let UnitNews::Result(result) = news {
                all.push(result);
            }
        }
        (ended, all)
    }

    fn calls(&self, prefix: &str) -> usize {
        self.engine.calls().iter().filter(|call| call.starts_with(prefix)).count()
    }

    fn fail_starts(&self, count: usize) {
        for _ in 0..count {
            let message = "no memory for a process".to_owned();
            let error = EngineError::Refused { what: "start".to_owned(), status: 500, message };
            self.engine.fail_next("start andon-lane0-db", error);
        }
    }
}

fn spec() -> RunSpec {
    let image = |name: &str| Some(Image { source: Some(image::Source::Reference(name.to_owned())) });
    let command = CommandRunner { discover: "list".to_owned(), run: "run {tests}".to_owned() };
    RunSpec {
        project: "p".to_owned(),
        stack: Some(Stack {
            services: vec![Service { name: "db".to_owned(), image: image("db"), ..Service::default() }],
            compose_digest: String::new(),
        }),
        baseline: Some(BaselineSpec { seed: vec!["seed it".to_owned()], ..BaselineSpec::default() }),
        suites: vec![Suite {
            name: "s".to_owned(),
            image: image("tests"),
            runner: Some(suite::Runner::Command(command)),
            ..Suite::default()
        }],
        ..RunSpec::default()
    }
}

#[tokio::test]
async fn the_second_worker_gets_the_published_artifact_and_seeds_nothing() {
    let farm = Arc::new(FakeFarm::default());
    let first = Bench::new(&farm, None).await;
    let built = first.hands.prepare_baseline(1, &spec(), &first.notices).await.unwrap();
    assert!(built.built);
    assert_eq!(first.calls("exec andon-lanebuild-unit1 sh -c seed it"), 1);
    let manifest = built.manifest.unwrap();
    assert_eq!(manifest.trees[0].name, "layer/db");
    assert!(first.engine.containers().is_empty() && first.engine.networks().is_empty());
    farm.published.lock().unwrap().push(manifest.clone());

    let second = Bench::new(&farm, None).await;
    let fetched = second.hands.prepare_baseline(1, &spec(), &second.notices).await.unwrap();
    assert!(!fetched.built);
    assert_eq!(fetched.manifest.unwrap(), manifest);
    assert_eq!(second.calls("exec"), 0);

    // And a third that was never asked to prepare it.
    let third = Bench::new(&farm, None).await;
    let (ended, results) = third.unit(&manifest.key).await;
    ended.unwrap();
    assert_eq!(results[0].outcome(), Outcome::Passed);
    let log = layer(third.dir.path(), "andon-lane0-db").join("log");
    assert_eq!(std::fs::read_to_string(log).unwrap(), "started");
}

#[tokio::test]
async fn a_failed_seed_publishes_nothing_and_names_the_command_with_its_output() {
    let farm = Arc::new(FakeFarm::default());
    let bench = Bench::new(&farm, None).await;
    bench.engine.on_exec(|_, _| Script {
        stderr: "no such table\n".to_owned(),
        exit_code: 5,
        ..Script::default()
    });
    let failure = bench.hands.prepare_baseline(1, &spec(), &bench.notices).await.unwrap_err();
    assert_eq!(failure.class, Class::Baseline);
    for part in ["seed command 1 of 1", "`seed it`", "exit code 5", "no such table"] {
        assert!(failure.reason.contains(part), "{part:?} is not in {}", failure.reason);
    }
    assert_eq!(failure.log, b"no such table\n");
    assert!(farm.blobs.lock().unwrap().is_empty());
    assert!(bench.engine.containers().is_empty() && bench.engine.networks().is_empty());
    let again = bench.hands.prepare_baseline(1, &spec(), &bench.notices).await;
    assert_eq!(again.unwrap_err().class, Class::Baseline, "nothing of it is in the pool");
}

#[tokio::test]
async fn a_service_that_does_not_stop_well_fails_the_build() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), None).await;
    bench.engine.on_stop("andon-build-db", 2);
    let failure = bench.hands.prepare_baseline(1, &spec(), &bench.notices).await.unwrap_err();
    assert_eq!(failure.class, Class::Baseline);
    assert!(failure.reason.contains("service `db` stopped with exit code 2"), "{}", failure.reason);
}

#[tokio::test]
async fn each_unit_starts_on_what_the_baseline_holds_with_either_driver() {
    for driver in [Driver::Restart, Driver::Recreate] {
        let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(driver)).await;
        let key = bench.baseline().await;
        for _ in 0..3 {
            let (ended, results) = bench.unit(&key).await;
            ended.unwrap();
            assert_eq!((results.len(), results[0].driver.as_str()), (1, driver.as_str()));
            assert!(results[0].rebase_us > 0);
            let own = layer(bench.dir.path(), "andon-lane0-db");
            std::fs::write(own.join("left"), "by a test").unwrap();
            std::fs::write(own.join("log"), "overwritten").unwrap();
            let settled = bench.hands.settle(0).await.unwrap();
            assert_eq!(settled.baseline_key, key);
            assert_eq!(settled.footprint.unwrap().await.unwrap().footprint.files, 2);
            assert!(!own.join("left").exists());
            assert_eq!(std::fs::read_to_string(own.join("log")).unwrap(), "started");
        }
        bench.engine.clear_calls();
        bench.unit(&key).await.0.unwrap();
        assert_eq!(bench.calls("start andon-lane0-db"), 0, "an idle lane waits pristine");
        bench.hands.shutdown().await;
        assert!(bench.engine.containers().is_empty() && bench.engine.networks().is_empty());
    }
}

#[tokio::test]
async fn two_failed_rebases_rebuild_the_lane_and_three_failed_rebuilds_make_it_unfit() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Restart)).await;
    let key = bench.baseline().await;
    bench.unit(&key).await.0.unwrap();
    bench.fail_starts(2);
    bench.engine.clear_calls();
    assert_eq!(bench.hands.settle(0).await.unwrap().baseline_key, key);
    assert_eq!(bench.calls("start andon-lane0-db"), 3);
    assert_eq!(bench.calls("create andon-lane0-db"), 1, "rebuilt");

    bench.unit(&key).await.0.unwrap();
    bench.fail_starts(5);
    let unfit = bench.hands.settle(0).await.unwrap_err();
    assert!(unfit.reason.contains("no memory for a process"), "{unfit}");
    bench.hands.settle(0).await.unwrap_err();
}

#[tokio::test]
async fn services_and_units_join_sandboxes_that_stay_over_restarts() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Restart)).await;
    let key = bench.baseline().await;
    let network = |container: &str| bench.engine.spec(container).unwrap().network;
    for _ in 0..4 {
        bench.unit(&key).await.0.unwrap();
        bench.hands.settle(0).await.unwrap();
        assert_eq!(network("andon-lane0-db"), NetworkMode::Container("andon-lane0.db".to_owned()));
    }
    let sandboxes = bench.engine.containers().into_iter().filter(|name| name.starts_with("andon-lane0."));
    assert!((3..=4).contains(&sandboxes.count()), "the service's, and one for each unit's box at a time");
    assert_eq!(bench.calls("start andon-lane0.db"), 1);
    let boxes = bench.engine.containers().into_iter().filter(|name| name.starts_with("andon-lane0-unit"));
    for unit_box in boxes {
        assert!(matches!(network(&unit_box), NetworkMode::Container(_)), "{unit_box}");
    }
    bench.hands.shutdown().await;
    assert!(bench.engine.containers().is_empty() && bench.engine.networks().is_empty());
}

#[tokio::test]
async fn recreate_makes_a_sandbox_anew_and_gives_units_networks_of_their_own() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Recreate)).await;
    let key = bench.baseline().await;
    bench.unit(&key).await.0.unwrap();
    bench.engine.clear_calls();
    bench.hands.settle(0).await.unwrap();
    assert_eq!((bench.calls("remove andon-lane0.db"), bench.calls("create andon-lane0.db")), (1, 1));
    assert!(!bench.engine.containers().iter().any(|name| name.starts_with("andon-lane0..")));
}

#[tokio::test]
async fn a_lane_whose_sandbox_has_ended_is_rebuilt() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Restart)).await;
    let key = bench.baseline().await;
    bench.unit(&key).await.0.unwrap();
    bench.engine.end_container("andon-lane0.db", 137, true);
    bench.engine.clear_calls();
    assert_eq!(bench.hands.settle(0).await.unwrap().baseline_key, key);
    assert_eq!((bench.calls("create andon-lane0.db"), bench.calls("start andon-lane0-db")), (1, 1));
    bench.unit(&key).await.0.unwrap();
}

#[tokio::test]
async fn a_lane_stands_as_soon_as_the_clone_that_somebody_still_prepares_there_is_gone() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Recreate)).await;
    let key = bench.baseline().await;
    let before = bench.pool.clone_lane("0", &bench.pool.baseline(&key).unwrap()).unwrap();
    let (unit, ()) = tokio::join!(bench.unit(&key), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        drop(before);
    });
    unit.0.unwrap();
}

/// A unit whose test fails, and another one on a database that has ended so.
async fn unit_on_a_database_that_ended(
    exit_code: i64,
    oom_killed: bool,
) -> (Result<(), WorkFailure>, Vec<TestResult>) {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Restart)).await;
    let key = bench.baseline().await;
    bench.engine.on_exec(|_, _| Script::code(1));
    let (ended, results) = bench.unit(&key).await;
    ended.unwrap();
    assert_eq!(results[0].outcome(), Outcome::Failed);
    bench.hands.settle(0).await.unwrap();
    bench.engine.end_container("andon-lane0-db", exit_code, oom_killed);
    bench.unit(&key).await
}

#[tokio::test]
async fn a_failure_is_not_the_tests_when_its_database_ran_out_of_memory() {
    let (ended, results) = unit_on_a_database_that_ended(137, true).await;
    let failure = ended.unwrap_err();
    assert_eq!((failure.class, results.len()), (Class::Infrastructure, 0));
    assert!(failure.reason.contains("`db` ran out of memory"), "{}", failure.reason);
}

#[tokio::test]
async fn a_failure_is_not_the_tests_when_its_database_was_killed_and_the_daemon_does_not_say_why() {
    let (ended, results) = unit_on_a_database_that_ended(137, false).await;
    let failure = ended.unwrap_err();
    assert_eq!((failure.class, results.len()), (Class::Infrastructure, 0));
    assert!(failure.reason.contains("`db` was killed"), "{}", failure.reason);
}

#[tokio::test]
async fn a_failure_is_the_tests_when_its_database_has_ended_by_itself() {
    let (ended, results) = unit_on_a_database_that_ended(1, false).await;
    ended.unwrap();
    assert_eq!(results[0].outcome(), Outcome::Failed);
}

#[tokio::test]
async fn a_baseline_that_nobody_has_is_the_farms_fault_and_an_unknown_suite_the_projects() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), None).await;
    let (ended, _) = bench.unit(&"0".repeat(64)).await;
    assert_eq!(ended.unwrap_err().class, Class::Infrastructure);
    let found = bench.hands.discover(0, 1, &spec(), "absent", "", &bench.notices).await;
    let failure = found.unwrap_err();
    assert_eq!(failure.class, Class::Config);
    assert!(failure.reason.ends_with("there are: s"), "{}", failure.reason);
}

#[tokio::test]
async fn discovery_refuses_bad_names_and_takes_an_empty_list() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), None).await;
    bench.engine.on_exec(|_, _| Script::prints("fine\n-rf\n"));
    let refused = bench.hands.discover(0, 1, &spec(), "s", "", &bench.notices).await.unwrap_err();
    assert_eq!(refused.class, Class::Config);
    assert!(refused.reason.contains("\"-rf\" starts with"), "{}", refused.reason);
    bench.engine.on_exec(|_, _| Script::default());
    let found = bench.hands.discover(0, 1, &spec(), "s", "", &bench.notices).await.unwrap();
    assert!(found.tests.is_empty());
}
