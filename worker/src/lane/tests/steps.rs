//! Baselines in steps: what is built upon, what is run again, what is sent.

use andon_proto::{BaselineInput, BaselineReady, BaselineStep};

use super::*;

/// Bytes that a seed leaves: enough for changes of it to be worth telling as such, and nothing that zstd makes small.
fn ballast() -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(1 << 20).collect()
}

/// `load` is kept on its own; `migrate` grows with its files.
pub(super) fn stepped(load: &str, migrations: &[&str]) -> RunSpec {
    let files =
        migrations.iter().map(|file| BaselineInput { path: (*file).to_owned(), digest: String::new() });
    let load = BaselineStep { run: vec![load.to_owned()], keep: Some(true), ..BaselineStep::default() };
    let migrate = BaselineStep {
        name: "schema".to_owned(),
        run: vec!["migrate".to_owned()],
        inputs_digest: migrations.join(","),
        grows: true,
        files: files.collect(),
        ..BaselineStep::default()
    };
    let baseline = BaselineSpec { steps: vec![load, migrate], ..BaselineSpec::default() };
    RunSpec { baseline: Some(baseline), ..super::spec() }
}

/// Each command adds itself to what the database's container holds; the one that `fails` fails.
async fn bench(farm: &Arc<FakeFarm>, fails: &'static str) -> Bench {
    seeded(Bench::new(farm, None).await, fails)
}

pub(super) fn seeded(bench: Bench, fails: &'static str) -> Bench {
    let dir = bench.dir.path().to_owned();
    bench.engine.on_exec(move |container, spec| {
        if !container.starts_with("andon-lanebuild") {
            return Script::default();
        }
        let command = spec.argv.last().cloned().unwrap_or_default();
        if command == fails {
            return Script { exit_code: 3, ..Script::default() };
        }
        let own = layer(&dir, "andon-build-db");
        let held = std::fs::read_to_string(own.join("did")).unwrap_or_default();
        std::fs::write(own.join("did"), format!("{held}{command} ")).unwrap();
        std::fs::write(own.join("ballast"), ballast()).unwrap();
        Script::default()
    });
    bench
}

impl Bench {
    pub(super) async fn prepare(&self, spec: &RunSpec) -> Result<BaselineReady, WorkFailure> {
        self.hands.prepare_baseline(1, spec, &self.notices).await
    }

    /// What a lane's container holds.
    pub(super) async fn did(&self, manifest: &BaselineManifest) -> String {
        self.unit(&manifest.key).await.0.unwrap();
        std::fs::read_to_string(layer(self.dir.path(), "andon-lane0-db").join("did")).unwrap()
    }

    pub(super) fn ran(&self, command: &str) -> usize {
        self.engine.calls().iter().filter(|call| call.ends_with(&format!("sh -c {command}"))).count()
    }
}

pub(super) fn publish(farm: &FakeFarm, ready: BaselineReady) -> BaselineManifest {
    let manifest = ready.manifest.unwrap();
    farm.published.lock().unwrap().push(manifest.clone());
    manifest
}

#[tokio::test]
async fn an_added_migration_is_run_on_the_parent_and_only_what_it_changes_is_sent() {
    let farm = Arc::new(FakeFarm::default());
    let first = bench(&farm, "").await;
    let parent = publish(&farm, first.prepare(&stepped("load", &["1"])).await.unwrap());
    assert_eq!((parent.parent_key.len(), parent.prefixes.len(), parent.steps.len()), (64, 1, 2));
    assert_eq!(first.did(&parent).await, "load migrate ");
    let stored = farm.blobs.lock().unwrap().len();

    // Another worker, which has nothing.
    let second = bench(&farm, "").await;
    let ready = second.prepare(&stepped("load", &["1", "2"])).await.unwrap();
    assert!(ready.built);
    assert_eq!((second.ran("load"), second.ran("migrate")), (0, 1));
    let child = publish(&farm, ready);
    assert_eq!(child.parent_key, parent.key);
    assert_eq!(child.steps[0], parent.steps[0]);
    assert!(
        child
            .labels
            .iter()
            .any(|label| label.key == "dev.andon.baseline.parent" && label.value == parent.key)
    );
    assert_eq!(second.did(&child).await, "load migrate migrate ");
    let [tree] = child.trees.as_slice() else { panic!("one tree") };
    let below = parent.trees[0].lower.len() + 1;
    assert_eq!(tree.lower.len(), below);
    assert!(tree.blob_size * 100 < tree.lower[0].blob_size, "{tree:?}");
    assert_eq!(farm.blobs.lock().unwrap().len(), stored + 1);

    // The first worker has the parent: it fetches one blob. A third one has nothing: it fetches all of them.
    farm.fetched.lock().unwrap().clear();
    assert!(!first.prepare(&stepped("load", &["1", "2"])).await.unwrap().built);
    assert_eq!(farm.fetched.lock().unwrap().as_slice(), std::slice::from_ref(&tree.blob_digest));
    let third = bench(&farm, "").await;
    assert!(!third.prepare(&stepped("load", &["1", "2"])).await.unwrap().built);
    assert_eq!(farm.fetched.lock().unwrap().len(), 1 + below + 1);
    assert_eq!(third.did(&child).await, "load migrate migrate ");
}

#[tokio::test]
async fn a_change_of_an_earlier_step_runs_all_and_an_edited_migration_the_last_step() {
    let farm = Arc::new(FakeFarm::default());
    let bench = bench(&farm, "").await;
    publish(&farm, bench.prepare(&stepped("load", &["1"])).await.unwrap());
    let edited = publish(&farm, bench.prepare(&stepped("load", &["another 1"])).await.unwrap());
    assert_eq!((bench.ran("load"), bench.ran("migrate")), (1, 2));
    assert_eq!(bench.did(&edited).await, "load migrate ");

    let other = publish(&farm, bench.prepare(&stepped("load2", &["1"])).await.unwrap());
    assert_eq!((bench.ran("load2"), bench.ran("migrate")), (1, 3));
    assert_eq!(bench.did(&other).await, "load2 migrate ");
}

#[tokio::test]
async fn a_failed_step_publishes_nothing_is_named_and_the_next_build_goes_on_before_it() {
    let farm = Arc::new(FakeFarm::default());
    let bench = bench(&farm, "wrong").await;
    let mut wrong = stepped("load", &["1"]);
    wrong.baseline.as_mut().unwrap().steps[1].run = vec!["wrong".to_owned()];
    let failure = bench.prepare(&wrong).await.unwrap_err();
    assert_eq!(failure.class, Class::Baseline);
    let named = "step 2 of 2 (`schema`): seed command 1 of 1, `wrong`, failed with exit code 3";
    assert!(failure.reason.starts_with(named), "{}", failure.reason);
    assert!(farm.blobs.lock().unwrap().is_empty());
    assert!(bench.engine.containers().is_empty() && bench.engine.networks().is_empty());

    let right = publish(&farm, bench.prepare(&stepped("load", &["1"])).await.unwrap());
    assert_eq!((bench.ran("load"), right.prefixes.len()), (1, 1));
    assert_eq!(bench.did(&right).await, "load migrate ");

    // What was kept on the way is a baseline to whoever wants no more than that.
    let mut shorter = stepped("load", &[]);
    shorter.baseline.as_mut().unwrap().steps.truncate(1);
    let second = super::steps::bench(&farm, "").await;
    let ready = second.prepare(&shorter).await.unwrap();
    assert!(!ready.built);
    assert_eq!(second.did(&ready.manifest.unwrap()).await, "load ");
}

#[tokio::test]
async fn a_tree_of_too_many_layers_goes_whole_again() {
    let farm = Arc::new(FakeFarm::default());
    let bench = bench(&farm, "").await;
    let mut files: Vec<String> = Vec::new();
    let mut layers = Vec::new();
    for number in 0..10 {
        files.push(number.to_string());
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let manifest = publish(&farm, bench.prepare(&stepped("load", &files)).await.unwrap());
        layers.push(manifest.trees[0].lower.len() + 1);
    }
    assert_eq!(layers, [2, 3, 4, 5, 6, 7, 8, 1, 2, 3]);
    let second = super::steps::bench(&farm, "").await;
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let last = second.prepare(&stepped("load", &files)).await.unwrap().manifest.unwrap();
    assert_eq!(second.did(&last).await, format!("load {}", "migrate ".repeat(10)));
}

#[tokio::test]
async fn a_parent_that_cannot_be_had_costs_time_alone() {
    let farm = Arc::new(FakeFarm::default());
    let first = bench(&farm, "").await;
    publish(&farm, first.prepare(&stepped("load", &["1"])).await.unwrap());
    farm.blobs.lock().unwrap().clear();
    let second = bench(&farm, "").await;
    let ready = second.prepare(&stepped("load", &["1", "2"])).await.unwrap();
    assert_eq!((ready.built, second.ran("load")), (true, 1));
    let manifest = ready.manifest.unwrap();
    assert_eq!(second.did(&manifest).await, "load migrate ");
    let known = farm.blobs.lock().unwrap();
    let all = |tree: &andon_proto::BaselineTree| {
        tree.lower.iter().all(|layer| known.contains_key(&layer.blob_digest))
    };
    assert!(manifest.trees.iter().all(all), "nothing is told as a change of what the farm has lost");
}
