//! Lanes with several stands.

use super::*;

/// Waits until a container is there, or is not any more: stands come and go behind the units.
async fn until(bench: &Bench, container: &str, there: bool) {
    let waiting = async {
        while bench.engine.containers().iter().any(|name| name == container) != there {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.unwrap();
}

#[tokio::test]
async fn units_follow_each_other_on_stands_that_are_ready_and_what_they_leave_is_undone_behind_them() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Standby)).await;
    let key = bench.baseline().await;
    let mut drivers = Vec::new();
    for _ in 0..6 {
        let (ended, results) = bench.unit(&key).await;
        ended.unwrap();
        drivers.push(results[0].driver.clone());
        for stand in ["andon-lane0", "andon-lane0_1"] {
            until(&bench, &format!("{stand}-db"), true).await;
            let own = layer(bench.dir.path(), &format!("{stand}-db"));
            assert!(
                !own.join("left").exists(),
                "of two stands one serves, and the other is pristine or being put back"
            );
        }
        let settled = bench.hands.settle(0).await.unwrap();
        assert_eq!(settled.baseline_key, key);
        assert_eq!(settled.footprint.unwrap().await.unwrap().footprint.files, 0);
    }
    assert!(drivers.iter().all(|driver| driver == "standby"), "{drivers:?}");
    bench.hands.shutdown().await;
    assert!(bench.engine.containers().is_empty() && bench.engine.networks().is_empty());
}

#[tokio::test]
async fn what_a_unit_left_on_its_stand_is_measured_and_gone_when_the_stand_serves_again() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Standby)).await;
    let key = bench.baseline().await;
    bench.unit(&key).await.0.unwrap();
    let first = layer(bench.dir.path(), "andon-lane0-db");
    std::fs::write(first.join("left"), "by a test").unwrap();
    let settled = bench.hands.settle(0).await.unwrap();
    assert_eq!(settled.footprint.unwrap().await.unwrap().footprint.files, 1);
    for _ in 0..4 {
        bench.unit(&key).await.0.unwrap();
        assert!(!first.join("left").exists());
        bench.hands.settle(0).await.unwrap();
    }
}

#[tokio::test]
async fn a_box_is_led_to_the_stand_that_serves_and_has_the_services_names() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Standby)).await;
    let key = bench.baseline().await;
    for _ in 0..3 {
        bench.unit(&key).await.0.unwrap();
        until(&bench, "andon-lane0_1-db", true).await;
        bench.hands.settle(0).await.unwrap();
    }
    assert!(bench.calls("connect-network andon-lane0_1 andon-lane0..unit") >= 1);
    let hosts = std::fs::read_to_string(layer(bench.dir.path(), "andon-lane0..unit1.network").join("hosts"));
    assert!(hosts.unwrap().starts_with("198.19.0.1\tdb\n"));
}

#[tokio::test]
async fn a_stand_that_cannot_be_put_back_is_raised_anew_and_the_lane_goes_on() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Standby)).await;
    let key = bench.baseline().await;
    bench.unit(&key).await.0.unwrap();
    until(&bench, "andon-lane0_1-db", true).await;
    bench.fail_starts(2);
    bench.engine.clear_calls();
    for _ in 0..3 {
        bench.hands.settle(0).await.unwrap();
        bench.unit(&key).await.0.unwrap();
    }
    // The other stand may have served meanwhile, more than once.
    let anew = async {
        while bench.calls("create andon-lane0-db") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), anew).await.unwrap();
    assert_eq!(bench.calls("create andon-lane0_1-db"), 0, "the other one is none the worse");
    bench.fail_starts(100);
    for _ in 0..3 {
        bench.hands.settle(0).await.unwrap();
        bench.unit(&key).await.0.unwrap();
    }
}

#[tokio::test]
async fn after_the_daemon_was_replaced_all_stands_are_made_anew() {
    let bench = Bench::new(&Arc::new(FakeFarm::default()), Some(Driver::Standby)).await;
    let key = bench.baseline().await;
    bench.unit(&key).await.0.unwrap();
    until(&bench, "andon-lane0_1-db", true).await;
    bench.engine.clear_calls();
    bench.hands.distrust(0).await;
    bench.hands.settle(0).await.unwrap();
    until(&bench, "andon-lane0_1-db", true).await;
    assert_eq!((bench.calls("create andon-lane0-db"), bench.calls("create andon-lane0_1-db")), (1, 1));
    bench.unit(&key).await.0.unwrap();
}
