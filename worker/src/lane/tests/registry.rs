//! Baselines through a real registry: what goes there, what comes back, and what happens where it does not.

use tokio::sync::mpsc::Receiver;

use super::steps::{publish, seeded, stepped};
use super::*;
use crate::registry::testing::{TestRegistry, uploads};

async fn worker(farm: &Arc<FakeFarm>, registry: Option<Registry>) -> (Bench, Receiver<String>) {
    let mut bench = seeded(Bench::with_registry(farm, None, registry).await, "");
    let (sender, notices) = mpsc::channel(64);
    bench.notices = sender;
    (bench, notices)
}

fn said(notices: &mut Receiver<String>) -> String {
    let mut all = String::new();
    while let Ok(line) = notices.try_recv() {
        all.push_str(&line);
        all.push('\n');
    }
    all
}

fn reason(ready: Result<andon_proto::BaselineReady, WorkFailure>) -> String {
    let failure = ready.expect_err("the baseline cannot be had");
    assert_eq!(failure.class, Class::Infrastructure);
    failure.reason
}

#[tokio::test]
async fn a_second_worker_has_the_baseline_from_the_registry_and_the_coordinator_has_no_blob() {
    let (farm, registry) = (Arc::new(FakeFarm::default()), TestRegistry::start().await);
    let (first, _) = worker(&farm, Some(registry.client().await)).await;
    let ready = first.prepare(&stepped("load", &["1"])).await.unwrap();
    assert!(ready.built && !ready.replaces);
    let manifest = publish(&farm, ready);
    let place = format!("{}:{}@sha256:", registry.client().await.address(), manifest.key);
    assert!(manifest.artifact.starts_with(&place), "{}", manifest.artifact);
    assert!(manifest.prefixes.iter().all(|kept| !kept.artifact.is_empty()));

    let (second, mut notices) = worker(&farm, Some(registry.client().await)).await;
    let again = second.prepare(&stepped("load", &["1"])).await.unwrap();
    assert!(!again.built && !again.replaces);
    assert_eq!(again.manifest.unwrap(), manifest);
    assert!(said(&mut notices).contains("fetching baseline"));
    assert_eq!(second.did(&manifest).await, "load migrate ");
    assert!(farm.blobs.lock().unwrap().is_empty() && farm.fetched.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_child_sends_what_its_parent_has_not_and_a_worker_with_the_parent_fetches_only_that() {
    let (farm, registry) = (Arc::new(FakeFarm::default()), TestRegistry::start().await);
    let (first, _) = worker(&farm, Some(registry.client().await)).await;
    publish(&farm, first.prepare(&stepped("load", &["1"])).await.unwrap());
    let (second, _) = worker(&farm, Some(registry.client().await)).await;
    registry.asked();
    let child = publish(&farm, second.prepare(&stepped("load", &["1", "2"])).await.unwrap());
    // One layer, and the configuration.
    assert_eq!(uploads(&registry.asked()), 2);
    let [tree] = child.trees.as_slice() else { panic!("one tree") };
    assert!(!tree.lower.is_empty() && tree.lower.iter().all(|layer| layer.sha256.len() == 64));

    assert!(!first.prepare(&stepped("load", &["1", "2"])).await.unwrap().built);
    let asked = registry.asked();
    let fetched: Vec<&String> =
        asked.iter().filter(|head| head.starts_with("get ") && head.contains("/blobs/sha256:")).collect();
    assert_eq!(fetched.len(), 1, "{asked:?}");
    assert!(fetched[0].contains(&tree.sha256));
    assert_eq!(first.did(&child).await, "load migrate migrate ");
}

#[tokio::test]
async fn a_build_is_not_lost_while_the_registry_is_away() {
    let (farm, mut registry) = (Arc::new(FakeFarm::default()), TestRegistry::start().await);
    let (first, mut notices) = worker(&farm, Some(registry.client().await)).await;
    registry.go_away().await;
    let manifest = publish(&farm, first.prepare(&stepped("load", &["1"])).await.unwrap());
    assert!(said(&mut notices).contains("the baseline goes to the coordinator's store: "));
    assert!(manifest.artifact.is_empty() && !farm.blobs.lock().unwrap().is_empty());
    // Others have it from there, with the registry or without.
    let (second, _) = worker(&farm, Some(registry.client().await)).await;
    assert!(!second.prepare(&stepped("load", &["1"])).await.unwrap().built);
    registry.come_back().await;
    let (third, _) = worker(&farm, None).await;
    assert!(!third.prepare(&stepped("load", &["1"])).await.unwrap().built);
    // What is built on it goes to the registry again, whole: all blobs of a baseline are in one place.
    let child = publish(&farm, second.prepare(&stepped("load", &["1", "2"])).await.unwrap());
    assert!(!child.artifact.is_empty() && child.trees[0].lower.is_empty());
}

#[tokio::test]
async fn where_the_registry_is_away_and_the_coordinator_has_no_copy_it_is_told_and_nothing_is_built_twice() {
    let (farm, mut registry) = (Arc::new(FakeFarm::default()), TestRegistry::start().await);
    let (first, _) = worker(&farm, Some(registry.client().await)).await;
    let manifest = publish(&farm, first.prepare(&stepped("load", &["1"])).await.unwrap());
    registry.go_away().await;
    // Who has it needs no registry.
    assert!(!first.prepare(&stepped("load", &["1"])).await.unwrap().built);
    assert_eq!(first.did(&manifest).await, "load migrate ");

    let (second, _) = worker(&farm, Some(registry.client().await)).await;
    let said = reason(second.prepare(&stepped("load", &["1"])).await);
    for part in [manifest.artifact.as_str(), "is away", "the coordinator's store has no copy"] {
        assert!(said.contains(part), "{said}");
    }
    let (third, _) = worker(&farm, None).await;
    let said = reason(third.prepare(&stepped("load", &["1"])).await);
    assert!(said.contains("ANDON_REGISTRY") && said.contains(&manifest.artifact), "{said}");
    assert_eq!((second.ran("load"), third.ran("load")), (0, 0));
    // And then it is there again.
    registry.come_back().await;
    assert!(!second.prepare(&stepped("load", &["1"])).await.unwrap().built);
}

#[tokio::test]
async fn a_damaged_blob_never_enters_the_pool() {
    let (farm, registry) = (Arc::new(FakeFarm::default()), TestRegistry::start().await);
    let (first, _) = worker(&farm, Some(registry.client().await)).await;
    let manifest = publish(&farm, first.prepare(&stepped("load", &["1"])).await.unwrap());
    let file = registry.blob_file(&manifest.trees[0].sha256);
    let right = std::fs::read(&file).unwrap();
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    std::fs::write(&file, wrong).unwrap();
    let (second, _) = worker(&farm, Some(registry.client().await)).await;
    let said = reason(second.prepare(&stepped("load", &["1"])).await);
    assert!(said.contains("damaged there"), "{said}");
    second.unit(&manifest.key).await.0.expect_err("no lane stands on it");
    std::fs::write(&file, right).unwrap();
    assert!(!second.prepare(&stepped("load", &["1"])).await.unwrap().built);
    assert_eq!(second.did(&manifest).await, "load migrate ");
}

#[tokio::test]
async fn what_somebody_deleted_is_put_back_by_who_has_it_and_else_built_anew() {
    let (farm, registry) = (Arc::new(FakeFarm::default()), TestRegistry::start().await);
    let (first, _) = worker(&farm, Some(registry.client().await)).await;
    let manifest = publish(&farm, first.prepare(&stepped("load", &["1"])).await.unwrap());
    registry.purge();
    let (second, mut notices) = worker(&farm, Some(registry.client().await)).await;
    let anew = second.prepare(&stepped("load", &["1"])).await.unwrap();
    assert!(anew.built && anew.replaces);
    assert!(said(&mut notices).contains("cannot be had any more"));

    registry.purge();
    let again = first.prepare(&stepped("load", &["1"])).await.unwrap();
    assert!(!again.built && again.replaces);
    assert_eq!(again.manifest.as_ref().unwrap().key, manifest.key);
    let stored = farm.published.lock().unwrap().remove(0);
    assert_eq!(stored.key, manifest.key);
    publish(&farm, again);
    let (third, _) = worker(&farm, Some(registry.client().await)).await;
    assert!(!third.prepare(&stepped("load", &["1"])).await.unwrap().built);
}
