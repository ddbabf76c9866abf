//! Boxes that serve one unit after the other.

use super::*;
use crate::engine::Engine as _;

/// The boxes of units that are there.
fn boxes(bench: &Bench) -> Vec<String> {
    let containers = bench.engine.containers();
    containers.into_iter().filter(|name| name.starts_with("andon-lane0-unit")).collect()
}

#[tokio::test]
async fn two_boxes_serve_all_units_of_a_lane_and_nothing_of_a_unit_is_left_in_them() {
    for driver in [Driver::Restart, Driver::Standby] {
        let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(driver)).await;
        let key = bench.baseline().await;
        bench.unit(&key).await.0.unwrap();
        bench.hands.settle(0).await.unwrap();
        bench.engine.clear_calls();
        for _ in 0..5 {
            for unit_box in boxes(&bench) {
                let own = layer(bench.dir.path(), &unit_box);
                std::fs::create_dir_all(own.join("root")).unwrap();
                std::fs::write(own.join("root/left"), unit_box).unwrap();
            }
            bench.unit(&key).await.0.unwrap();
            bench.hands.settle(0).await.unwrap();
        }
        assert_eq!(boxes(&bench).len(), 2, "{driver}: {:?}", boxes(&bench));
        assert!(bench.calls("create andon-lane0-unit") <= 1, "{driver}: {:?}", bench.engine.calls());
        assert_eq!(bench.calls("remove andon-lane0-unit"), 0, "{driver}");
        assert!(bench.calls("start andon-lane0-unit") <= 6, "{driver}: one a unit, and the one that waits");
        let left =
            boxes(&bench).into_iter().filter(|name| layer(bench.dir.path(), name).join("root").exists());
        assert!(left.count() <= 1, "{driver}: but for the one that was used last they are empty");
        bench.hands.shutdown().await;
        assert!(bench.engine.containers().is_empty() && bench.engine.networks().is_empty());
    }
}

#[tokio::test]
async fn a_box_that_cannot_be_made_ready_again_is_replaced() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Restart)).await;
    let key = bench.baseline().await;
    for _ in 0..2 {
        bench.unit(&key).await.0.unwrap();
        bench.hands.settle(0).await.unwrap();
    }
    let message = "no memory for a process".to_owned();
    let error = EngineError::Refused { what: "start".to_owned(), status: 500, message };
    bench.engine.fail_next("start andon-lane0-unit", error);
    bench.engine.clear_calls();
    bench.unit(&key).await.0.unwrap();
    bench.hands.settle(0).await.unwrap();
    bench.unit(&key).await.0.unwrap();
    assert_eq!(
        (bench.calls("remove andon-lane0-unit"), bench.calls("create andon-lane0-unit")),
        (1, 1),
        "{:?}",
        bench.engine.calls()
    );
}

#[tokio::test]
async fn a_box_of_an_image_with_volumes_serves_one_unit() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Restart)).await;
    let volumes = vec!["/var/cache".to_owned()];
    bench.engine.add_image("tests", ImageInfo { id: "tests".to_owned(), volumes, ..ImageInfo::default() });
    let key = bench.baseline().await;
    bench.engine.clear_calls();
    for _ in 0..3 {
        bench.unit(&key).await.0.unwrap();
        bench.hands.settle(0).await.unwrap();
    }
    let (created, started) = (bench.calls("create andon-lane0-unit"), bench.calls("start andon-lane0-unit"));
    assert!(created >= 3 && created == started, "{:?}", bench.engine.calls());
}

/// The same project without its service.
fn serviceless() -> RunSpec {
    RunSpec { stack: None, baseline: None, ..spec() }
}

#[tokio::test]
async fn boxes_without_services_serve_again_apart_from_each_other_and_from_all_else() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), None).await;
    for round in 0..6 {
        bench.unit_of(&serviceless(), "").await.0.unwrap();
        for unit_box in boxes(&bench) {
            let NetworkMode::Container(sandbox) = bench.engine.spec(&unit_box).unwrap().network else {
                panic!("{unit_box} has a network of its own");
            };
            assert_eq!(bench.engine.spec(&sandbox).unwrap().network, NetworkMode::None);
            std::fs::create_dir_all(layer(bench.dir.path(), &unit_box).join("left")).unwrap();
        }
        bench.hands.settle(0).await.unwrap();
        let calls = bench.engine.calls();
        let last = calls.iter().rev().find_map(|call| call.strip_prefix("exec ")).expect("a test ran");
        let used = last.split(' ').next().unwrap();
        let state = bench.engine.inspect_container(used).await.unwrap();
        assert!(!state.is_running(), "round {round}: nothing that the unit left in {used} lives on");
    }
    assert_eq!(boxes(&bench).len(), 2);
    assert!(bench.calls("create andon-lane0-unit") <= 3, "{:?}", bench.engine.calls());
    // A stack comes to the lane, and goes.
    let key = bench.baseline().await;
    bench.unit(&key).await.0.unwrap();
    for unit_box in boxes(&bench) {
        let NetworkMode::Container(sandbox) = bench.engine.spec(&unit_box).unwrap().network else { continue };
        assert_ne!(
            bench.engine.spec(&sandbox).unwrap().network,
            NetworkMode::None,
            "{unit_box} reaches services"
        );
    }
    bench.hands.settle(0).await.unwrap();
    bench.unit_of(&serviceless(), "").await.0.unwrap();
    bench.hands.shutdown().await;
    assert!(bench.engine.containers().is_empty() && bench.engine.networks().is_empty());
}

#[tokio::test]
async fn without_services_too_all_is_made_anew_once_the_daemon_was_replaced() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), None).await;
    for _ in 0..2 {
        bench.unit_of(&serviceless(), "").await.0.unwrap();
        bench.hands.settle(0).await.unwrap();
    }
    bench.hands.distrust(0).await;
    bench.engine.clear_calls();
    bench.unit_of(&serviceless(), "").await.0.unwrap();
    for what in ["remove andon-lane0-unit", "remove andon-lane0..unit", "create andon-lane0..unit"] {
        assert!(bench.calls(what) >= 1, "{what}: {:?}", bench.engine.calls());
    }
}
